"""Limits on what a block, a call or a session may use.

budget.py     what was used, and the work that ends when it is too much
limits.py     the blocks: ``with limits(tokens=…)``
metering.py   what each request has used, counted while its deltas come
"""
