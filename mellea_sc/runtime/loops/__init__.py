"""Which event loop is running, and what only that one can say.

current.py        asks the one that runs; everybody else imports this
asyncio_loop.py   what only asyncio can say
trio_loop.py      what only trio can say
notebook.py       cells of notebooks, inside whose event loop blocking calls are made
forks.py          what a forked child must not believe in
"""
