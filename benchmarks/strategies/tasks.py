"""The prompts, and what must hold of the answers: five kinds of requirement, eight prompts of each.

They are chosen so that a single answer of the embedded model is valid about half of the time, and
fails, if it does, anywhere in it. The prompt says nothing of it: a model this small, told of it, talks
about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

from mellea_sc import (
    Backend,
    Context,
    MustNotMatch,
    PartialValidationResult,
    Requirement,
    ValidationResult,
    simple_validate,
)
from mellea_sc.core.backend import Format, ModelOptions
from mellea_sc.core.base import Thunk

__all__ = ["KINDS", "TASKS", "AtLeastWords", "NoRepetition", "ShortSentences", "Task"]

LEAST = 30
"""Words: shorter answers are none. A small model that is told of a mistake may apologize in one sentence,
which meets every other requirement."""


class _WordByWord(Requirement):
    """Judged at each word, whatever the run is cut into; the whole text is judged likewise."""

    said: ClassVar[str]

    def __init__(self, limit: int, *, check_only: bool = False) -> None:
        super().__init__(self.said.format(limit), check_only=check_only, chunking="word")
        self.limit = limit

    def look_at(self, word: str) -> str | None:
        """Take the next word; why it must not stand there, if it must not."""
        raise NotImplementedError

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        reason = self.look_at(chunk)
        return PartialValidationResult("unknown" if reason is None else "fail", reason=reason)

    async def validate(
        self,
        backend: Backend,
        ctx: Context,
        *,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> ValidationResult:
        fresh = type(self)(self.limit)
        text = cast("Thunk", ctx.last_output()).value
        reason = next(filter(None, map(fresh.look_at, text.split())), None)
        return ValidationResult(reason is None, reason=reason)


class AtLeastWords(Requirement):
    """An answer that is one; known at its end only."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"at least {limit} words",
            simple_validate(
                lambda text: len(text.split()) >= limit, reason="the answer is too short"
            ),
            check_only=True,
        )


class ShortSentences(_WordByWord):
    """No sentence has more than so many words."""

    said = "no sentence has more than {} words"

    def __init__(self, limit: int, *, check_only: bool = False) -> None:
        super().__init__(limit, check_only=check_only)
        self._count = 0

    def look_at(self, word: str) -> str | None:
        self._count += 1
        if self._count > self.limit:
            return f"a sentence has more than {self.limit} words"
        if re.search(r"[.!?][\"')\u2019\u201d]?$", word):
            self._count = 0
        return None


class NoRepetition(_WordByWord):
    """No so many words in a row come twice."""

    said = "no {} words in a row are repeated"

    def __init__(self, limit: int, *, check_only: bool = False) -> None:
        super().__init__(limit, check_only=check_only)
        self._last: list[str] = []
        self._seen: set[str] = set()

    def look_at(self, word: str) -> str | None:
        self._last = [*self._last, word.strip(".,;:!?\"'()").lower()][-self.limit :]
        run = " ".join(self._last)
        if len(self._last) < self.limit or run not in self._seen:
            if len(self._last) == self.limit:
                self._seen.add(run)
            return None
        return f"the words {run!r} come twice"


@dataclass(frozen=True)
class Task:
    """A prompt, a seed, and what must hold of the answer.

    Args:
        kind: The kind of requirement.
        prompt: What the model is told to do.
        seed: The first attempt's; each further one has the next.
    """

    kind: str
    prompt: str
    seed: int

    def requirements(self) -> list[Requirement]:
        """Fresh ones: that of its kind, and a length that makes it an answer."""
        return [KINDS[self.kind](), AtLeastWords(LEAST)]


KINDS: dict[str, Callable[[], Requirement]] = {
    "no digits": lambda: MustNotMatch(r"\d"),
    "forbidden words": lambda: MustNotMatch(r"(?i)\b(essential|crucial|vital|important)"),
    "sentences of at most 25 words": lambda: ShortSentences(25, check_only=True),
    "no 3 words repeated": lambda: NoRepetition(3, check_only=True),
    "no sentence begins with He or She": lambda: MustNotMatch(r"\b(He|She)\b"),
}

PROMPTS = {
    "no digits": """
        Tell the history of the bicycle.
        Tell the history of the Roman Empire.
        Tell the history of the telephone.
        Describe the planet Mars.
        Describe the city of Tokyo.
        Describe the river Nile.
        Describe the Eiffel Tower.
        Describe Mount Everest.""",
    "forbidden words": """
        Explain why people should drink enough water.
        Explain why sleep matters.
        Explain why exercise is good for the heart.
        Explain why children should read books.
        Explain why bees matter.
        Explain why teamwork helps a company.
        Explain why trees are good for cities.
        Explain why learning a language is useful.""",
    "sentences of at most 25 words": """
        Explain how a volcano erupts.
        Explain how a rainbow forms.
        Explain how bread is made.
        Explain how birds fly.
        Explain how a bridge carries its load.
        Explain how the heart pumps blood.
        Explain how a bicycle stays upright.
        Explain how plants use sunlight.""",
    "no 3 words repeated": """
        Tell a story about a dragon who is afraid of fire.
        Tell a story about a lost dog.
        Tell a story about an old lighthouse.
        Tell a story about a brave mouse.
        Tell a story about a boy and the sea.
        Tell a story about a magic tree.
        Tell a story about two sisters.
        Tell a story about a robot that learns to paint.""",
    "no sentence begins with He or She": """
        Tell a story about a girl who finds a key.
        Tell a story about a king who cannot sleep.
        Tell a story about a baker and a thief.
        Tell a story about a boy who builds a boat.
        Tell a story about a teacher on her first day.
        Tell a story about a farmer and the rain.
        Tell a story about a nurse in the war.
        Tell a story about a sailor who comes home.""",
}

TASKS = [
    Task(kind, line.strip(), seed=1000 * (number + 1))
    for number, (kind, line) in enumerate(
        (kind, line) for kind, lines in PROMPTS.items() for line in lines.strip().splitlines()
    )
]
