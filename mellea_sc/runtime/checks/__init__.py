"""One text that is validated while it runs.

attempt.py      a generation that is validated while it runs, in one cancel scope: begin here
chunks.py       cuts deltas into chunks, or groups of them; which may be shown: chunks and verdicts in, "release", "hold" or "cancel" out
editors.py      requirements that edit the text, and which spans they have edited
lanes.py        cuts the shown text, has each requirement validate it in a task of its own, tells the ledger
interfaces.py   the interfaces between editors, lanes and view
memory.py       the states of a requirement after each piece, for another attempt or another pass
validation.py   validates the whole text at the end, and preconditions beside the answer
"""
