"""What carries a strategy out.

runner.py   asks what a plan says, in attempts, until the plan chooses one
factory.py  makes the attempts: copies of the requirements, lanes, editors, options
options.py  how they are checked and shown
tracing.py  the story of a call: what ran when, and what that cost
"""
