"""What anyio does not offer: services of the running event loop that asyncio and trio provide differently.

current.py        selects the implementation; the rest of the library imports only this.
                  Beside that: the cells of notebooks, and what a forked child must forget
asyncio_loop.py   the implementation for asyncio
trio_loop.py      the implementation for trio
"""
