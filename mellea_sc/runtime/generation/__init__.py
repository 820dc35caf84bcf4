"""One generation: from a request to the thunk that users await.

thunk.py        the user's handle: a text that can be awaited, read or cancelled
generation.py   the producer, a task: its state, its text, its one reader, its error
pump.py         the loop that moves deltas from the backend to their sink, the record of what came, and whether that
                is an answer
bound.py        backends that can generate, because they know where tasks are started
think_tags.py   removes the reasoning that a model writes into its text
"""
