"""Ready-made requirements.

limits.py       how long an answer may be
patterns.py     regular expressions that must and must not match; expressions/: how they are asked
valid_json.py   JSON, character by character; json/: its parts
code_blocks.py  fenced blocks: allowed languages, none left open; markdown.py: where they stand
repetition.py   loops
sensitive.py    secrets and personal data; kinds/: what they look like
judge.py        a model that scores the answer
making.py       short ways to make a requirement of your own
scanned.py      the base of most of them: requirements with a scanner; pieces.py: scanners, and pieces with verdicts

A requirement's module is imported when it is first used.
"""

from mellea_sc._lazy import export_lazily

export_lazily(__name__)
