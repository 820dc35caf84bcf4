"""The structured-concurrency kernel: who owns tasks, one generation, one stream and its checks.

Concurrency goes through anyio; what only one event loop can say is in ``_asyncio.py`` and ``_trio.py``,
and ``loops.py`` chooses between them. Imports nothing of ours but ``core``.
"""
