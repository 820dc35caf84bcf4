"""Limits on what a block, a call or a session may use.

budget.py     counts what is used, and compares it with the limits
scope.py      cancel scopes that are cancelled when a budget is exceeded
limits.py     the blocks: ``with limits(tokens=…)``
metering.py   counts what each request uses, while its deltas come
"""
