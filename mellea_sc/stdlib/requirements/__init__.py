"""Ways to say what must hold.

limits.py       how long an answer may be
patterns.py     regular expressions that must and must not match; expressions/: how they are asked
valid_json.py   JSON, character by character; json/: its parts
code_blocks.py  fenced blocks: allowed languages, none left open; markdown.py: where they stand
repetition.py   loops
sensitive.py    secrets and personal data; kinds/: what they look like
judge.py        a model that scores the answer
making.py       short ways to make a requirement of your own
watching.py     what most of these are made of: a chunking whose pieces carry verdicts; pieces.py: these

A requirement's module is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mellea_sc._lazy import importing

if TYPE_CHECKING:
    from mellea_sc.core.requirement import (
        PartialValidationResult,
        Requirement,
        ValidationResult,
        default_output_to_bool,
    )
    from mellea_sc.stdlib.requirements.code_blocks import CodeBlocks
    from mellea_sc.stdlib.requirements.length import MaxCharacters, MaxSentences, MaxWords
    from mellea_sc.stdlib.requirements.llm_judge import LLMJudge
    from mellea_sc.stdlib.requirements.making import (
        as_requirement,
        check,
        req,
        reqify,
        simple_validate,
    )
    from mellea_sc.stdlib.requirements.patterns import MustMatch, MustNotMatch
    from mellea_sc.stdlib.requirements.repetition import NoRepetition
    from mellea_sc.stdlib.requirements.sensitive import NoPII, NoSecrets
    from mellea_sc.stdlib.requirements.valid_json import ValidJSON

__all__ = [
    "CodeBlocks",
    "LLMJudge",
    "MaxCharacters",
    "MaxSentences",
    "MaxWords",
    "MustMatch",
    "MustNotMatch",
    "NoPII",
    "NoRepetition",
    "NoSecrets",
    "PartialValidationResult",
    "Requirement",
    "ValidJSON",
    "ValidationResult",
    "as_requirement",
    "check",
    "default_output_to_bool",
    "req",
    "reqify",
    "simple_validate",
]

__getattr__: Callable[[str], object] = importing(
    __name__,
    {
        "mellea_sc.core.requirement": (
            "PartialValidationResult",
            "Requirement",
            "ValidationResult",
            "default_output_to_bool",
        ),
        "mellea_sc.stdlib.requirements.code_blocks": ("CodeBlocks",),
        "mellea_sc.stdlib.requirements.llm_judge": ("LLMJudge",),
        "mellea_sc.stdlib.requirements.length": (
            "MaxCharacters",
            "MaxSentences",
            "MaxWords",
        ),
        "mellea_sc.stdlib.requirements.making": (
            "check",
            "req",
            "as_requirement",
            "reqify",
            "simple_validate",
        ),
        "mellea_sc.stdlib.requirements.patterns": (
            "MustMatch",
            "MustNotMatch",
        ),
        "mellea_sc.stdlib.requirements.repetition": ("NoRepetition",),
        "mellea_sc.stdlib.requirements.sensitive": (
            "NoPII",
            "NoSecrets",
        ),
        "mellea_sc.stdlib.requirements.valid_json": ("ValidJSON",),
    },
)
