"""Ready-made requirements.

length.py       the maximum length of an answer
patterns.py     regular expressions that must or must not match; expressions/: how they are matched
valid_json.py   JSON, character by character; json/: what is JSON, and what fits a schema
code_blocks.py  fenced code blocks: allowed languages, none left open; markdown.py: where they are
repetition.py   loops
sensitive.py    secrets and personal data; kinds/: their patterns
judging.py      how a model is asked to judge; a requirement that it scores
requirement.py  Mellea's module: requirements, and short ways to make one
scanned.py      the base class of most of them: requirements with a scanner, and the pieces with verdicts that it makes

A requirement's module is imported when it is first used.
"""

from mellea_sc._lazy import export_lazily

export_lazily(__name__)
