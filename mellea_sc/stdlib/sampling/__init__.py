"""Strategies: they decide how often a model is asked, with which action, and which of its answers is kept.

base.py     the base classes, and strategies that ask again when an answer is rejected
several.py  strategies that ask several times at once
plan.py     the contract: attempts in, what to ask next or which to keep out
runner.py   makes and runs the attempts that a plan asks for, until the plan chooses one
results.py  what became of them: their results, and the trace of the call
"""

from mellea_sc._lazy import export_lazily

export_lazily(__name__)
