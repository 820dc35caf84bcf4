"""One text judged while it runs.

attempt.py      a generation that is judged while it runs, in one cancel scope: begin here
checks.py       all who check one attempt
cutter.py       deltas into chunks that know where they stand in the text
editors.py      requirements that change the text, and edits.py, where they have
lanes.py        the text that is shown, on its way to its lanes and its view
lane.py         a requirement's task: piece after piece, verdict after verdict
memory.py       what a requirement knew after each piece, for another text or another pass
ledger.py       what may be shown: verdicts in, "release" or "cancel" out
validation.py   the whole text, judged at the end
"""
