"""The trace of a result: what ran inside what, what ended it, and what it cost.

A trace is a tree of values: the call, its attempts, and the judges' generations inside of them. Each node has its
outcome and, if something else has ended it, the cause. ``str(trace)`` is the tree for people,
:meth:`Trace.to_dict` the same for programs.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import attrs

from mellea_sc.core.picture import svg_of

CauseKind: TypeAlias = Literal[
    "requirement", "precondition", "choice", "limit", "timeout", "cancel", "error"
]


@attrs.frozen(kw_only=True)
class Cause:
    """The cause of an end or a rejection.

    Args:
        kind: ``"requirement"``, ``"precondition"``: a check failed; ``"choice"``: another attempt was chosen;
            ``"limit"``: a budget was used up; ``"timeout"``; ``"cancel"``: cancelled from outside; ``"error"``.
        who: The requirement, limit, or error.
        reason: The reason in words.
        chunk_index: The index of the chunk that failed.
        at: The time in seconds since the beginning of the trace; ``None``: at the very end.
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
        generated: Tokens received from the model: text, reasoning and tool calls.
        reasoning: The part of them that is reasoning.
        released: The part of them that is text that a reader was shown.
        wasted: The part of them that is neither in the accepted text, nor reasoning or tool calls of an attempt that
            has contributed to that text.
        limit: The maximum that the attempt was allowed to generate, if the call has set one.
        saved: Tokens saved by stopping early, at most: ``limit`` minus ``generated``.
        estimated: Whether they are estimated because the server has not counted them: one for each delta, or one
            for each four characters of longer deltas.
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
    """One node of a trace: a call, an attempt, or a judge's generation.

    Args:
        what: A name, for people.
        outcome: How it ended: ``"accepted"``, ``"rejected"``, ``"failed"``, ``"stopped"``, …
        began: The time of its begin, in seconds since the beginning of the trace.
        ended: The time of its end, in seconds since the beginning of the trace.
        cause: The cause of its end or rejection, if it did not end by itself.
        tokens: Its tokens, those of its attempts included; the tokens of judges are only in their own nodes.
        edits: The number of spans of its text that were left out or replaced, as far as the text may be shown.
        children: The nodes of what ran inside of it, in the order in which they began.
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
        """The tree as a picture: what ran when, on a time axis, and what ended it."""
        return svg_of(self)

    def to_html(self) -> str:
        """The picture as an HTML page, light or dark as the reader's system is set."""
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
