"""What anyio does not offer: services of the running event loop that asyncio and trio provide differently.

current.py        selects the implementation; the rest of the library imports only this.
asyncio_loop.py   the implementation for asyncio
trio_loop.py      the implementation for trio
notebook.py       the cells of notebooks
forks.py          what a forked child must forget
"""
