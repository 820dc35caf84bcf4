"""What anyio does not offer: services of the running event loop that asyncio and trio provide differently.

current.py        selects the implementation; the rest of the library imports only this
asyncio_loop.py   the implementation for asyncio
trio_loop.py      the implementation for trio
notebook.py       cells of notebooks, where blocking calls run inside of an event loop
forks.py          resets the state that a forked child has inherited
"""
