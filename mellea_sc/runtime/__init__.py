"""The structured-concurrency kernel: who owns tasks, one generation, one text and its checks. No sockets, no prompts.

nursery.py      one session's tasks in one event loop, and what is left of their errors
connections.py  a backend's connections in one session
adopted.py      a nursery that the event loop hosts, or another nursery
generation/     one generation: its request, its deltas, the thunk that people wait for
checks/         one text judged while it runs: cutting, editing, lanes, the ledger, the final validation
budgets/        limits: what was used, and the work that ends when that is too much
pacing.py       what producers and requests wait for, and for how long at most: back-pressure, slots, timeouts
failures.py     from where an error was raised to who is told of it
unobserved.py   errors that nobody has been told of yet
portal.py       blocking calls, and loop_thread.py, the thread with the event loop that they run in
loops/          which event loop is running, and what only that one can say

Concurrency goes through anyio. Imports nothing of ours but ``core``.
"""
