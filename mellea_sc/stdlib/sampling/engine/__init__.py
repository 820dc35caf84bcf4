"""Carries out the decisions of a strategy.

runner.py   makes and runs the attempts that a plan asks for, until the plan chooses one
tracing.py  makes the trace of a call: what ran when, and what it cost
"""
