"""Limits on what a block, a call or a session may use.

budget.py     what was used, against what may be used
scope.py      cancel scopes that end when that is exceeded
limits.py     the blocks: ``with limits(tokens=…)``
metering.py   what each request has used, counted while its deltas come
"""
