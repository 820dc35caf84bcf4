"""What carries a strategy out.

runner.py    asks and judges what a plan says, until the plan chooses
judges.py    the copies of the requirements that judge one attempt, and by what rules
tracing.py   the story of a call: what ran when, and what that cost
"""
