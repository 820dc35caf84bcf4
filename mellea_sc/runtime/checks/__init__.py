"""One text judged while it runs.

attempt.py      a generation that is judged while it runs, in one cancel scope: begin here
cutter.py       deltas into chunks that know where they stand in the text
editors.py      requirements that change the text, and edits.py, where they have
lanes.py        a task for each requirement
ledger.py       what may be shown: verdicts in, "release" or "cancel" out
validation.py   the whole text, judged at the end
"""
