"""One generation: from a request to the thunk that people wait for.

thunk.py        what a user holds: the text, to be awaited, read or cancelled
generation.py   the work behind it, in a task: its state, its text, its one reader, its error
prompt.py       from what is asked to the request
pump.py         one delta's way from the socket to whoever wants it
bound.py        backends that can generate: they have a place for the tasks
record.py       what is known of an answer besides its text
think_tags.py   reasoning that a model writes into its text, taken out of it
answers.py      whether an answer is one, and what it means
"""
