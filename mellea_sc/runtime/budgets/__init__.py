"""Limits on what a block, a call or a session may use.

budget.py     counts what is used, and compares it with the limits
limits.py     the blocks that are cancelled when one is exceeded: ``with limits(tokens=…)``, and those around tasks
metering.py   counts what each request uses, while its deltas come
"""
