"""The story of a result: what ran inside what, what ended it, and what that cost.

A trace is a tree of values: the call, its attempts, and the judges' generations inside them. Each node
says how it ended and, where it did not come to its own end, what caused that. ``str(trace)`` is the
tree for people, :meth:`Trace.to_dict` the same for programs.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import attrs

from mellea_sc.core.picture import svg_of

__all__ = ["Cause", "CauseKind", "TokenCount", "Trace"]

CauseKind: TypeAlias = Literal[
    "requirement", "precondition", "choice", "limit", "timeout", "cancel", "error"
]


@attrs.frozen(kw_only=True)
class Cause:
    """What ended something, or had it rejected.

    Args:
        kind: ``"requirement"``, ``"precondition"``: a check that failed; ``"choice"``: another attempt was
            chosen; ``"limit"``: a budget was used up; ``"timeout"``; ``"cancel"``: from outside;
            ``"error"``.
        who: Which requirement, limit, or error.
        reason: Why, in words.
        chunk_index: The chunk that failed.
        at: When, in seconds from the beginning of the trace; ``None`` where it was at the very end.
    """

    kind: CauseKind
    who: str = ""
    reason: str | None = None
    chunk_index: int | None = None
    at: float | None = None

    def __str__(self) -> str:
        said = f"{self.kind} {self.who}".strip()
        if self.chunk_index is not None:
            said += f" at chunk {self.chunk_index}"
        if self.at is not None:
            said += f" after {self.at:.2f} s"
        return f"{said}: {self.reason}" if self.reason else said


@attrs.frozen(kw_only=True)
class TokenCount:
    """Tokens of answers, without those of prompts.

    Args:
        generated: Received from the model: text, reasoning and calls.
        reasoning: Of those, the ones that it thought with.
        released: Of those, the ones in text that a reader was shown.
        wasted: Of those, the ones that are neither in the text that was accepted nor the reasoning or the calls of
            an attempt that this text is from.
        limit: What the attempt was allowed to generate, where the call said so.
        saved: By stopping early: ``limit`` less what was generated. That many could have come, no more.
        estimated: Whether the server did not count them: then they are one for each delta, and one for
            each four characters of longer ones.
    """

    generated: int = 0
    reasoning: int = 0
    released: int = 0
    wasted: int = 0
    limit: int | None = None
    saved: int = 0
    estimated: bool = False

    def __add__(self, other: TokenCount) -> TokenCount:
        return TokenCount(
            generated=self.generated + other.generated,
            reasoning=self.reasoning + other.reasoning,
            released=self.released + other.released,
            wasted=self.wasted + other.wasted,
            saved=self.saved + other.saved,
            estimated=self.estimated or other.estimated,
        )

    def __str__(self) -> str:
        about = "about " if self.estimated else ""
        said = [f"{about}{self.generated} tokens"]
        if self.reasoning:
            said.append(f"{self.reasoning} of reasoning")
        if self.released:
            said.append(f"{self.released} released")
        if self.wasted:
            said.append(f"{self.wasted} wasted")
        if self.saved:
            of = f" of a limit of {self.limit}" if self.limit is not None else " of the limits"
            said.append(f"up to {self.saved}{of} saved")
        return ", ".join(said)


@attrs.frozen(kw_only=True)
class Trace:
    """One node of the story, and all that ran inside it.

    Args:
        what: What it was, for people.
        outcome: How it ended: ``"accepted"``, ``"rejected"``, ``"failed"``, ``"stopped"``, …
        began: Seconds from the beginning of the trace.
        ended: Seconds from the beginning of the trace.
        cause: What ended it or had it rejected, where it was not its own end.
        tokens: Its own and its attempts'; those of judges are in their own nodes only.
        edits: How many spans of its text were left out or replaced, as far as it may be shown.
        children: What ran inside it, in the order of the beginnings.
    """

    what: str
    outcome: str
    began: float
    ended: float
    cause: Cause | None = None
    tokens: TokenCount = attrs.field(factory=TokenCount)
    edits: int = 0
    children: Sequence[Trace] = ()

    def to_dict(self) -> dict[str, object]:
        """The tree as plain dicts, lists, strings and numbers."""
        return attrs.asdict(self)

    def to_json(self) -> str:
        """The tree as JSON."""
        return json.dumps(self.to_dict())

    def to_svg(self) -> str:
        """The tree as a picture: what ran when, on one time axis, and what ended it."""
        return svg_of(self)

    def to_html(self) -> str:
        """The picture as a page, light or dark as the reader's system is."""
        return (
            '<!doctype html><meta charset="utf-8"><title>Trace</title>'
            "<style>:root{color-scheme:light dark}body{margin:2em;font-family:system-ui,sans-serif}</style>"
            f"{self.to_svg()}<pre>{html.escape(str(self))}</pre>"
        )

    def _repr_html_(self) -> str:
        return self.to_svg()

    def __str__(self) -> str:
        return "\n".join(_lines_of(self, "", ""))


def _lines_of(trace: Trace, first: str, then: str) -> Iterator[str]:
    """The lines of a trace, the first behind ``first``, and the others behind ``then``."""
    said = f"{trace.what}: {trace.outcome}, {trace.ended - trace.began:.2f} s, {trace.tokens}"
    if trace.edits:
        said += f", {trace.edits} edit{'s' * (trace.edits > 1)}"
    yield first + said
    if trace.cause is not None:
        bar = "│  " if trace.children else "   "
        yield f"{then}{bar}because of {trace.cause}"
    for number, child in enumerate(trace.children, 1):
        is_last = number == len(trace.children)
        yield from _lines_of(
            child, then + ("└─ " if is_last else "├─ "), then + ("   " if is_last else "│  ")
        )
