"""One generation: from a request to the thunk that people wait for.

producer.py     one delta's way from the socket to whoever wants it; backends that can generate
thunk.py        the text that is being generated, for many waiters and one reader
parts.py        what an answer has besides its text
think_tags.py   reasoning that a model writes into its text, taken out of it
answers.py      whether an answer is one, and what it means
"""
