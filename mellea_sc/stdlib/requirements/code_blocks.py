"""Fenced blocks of code in an answer: in an allowed language, and closed."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final, Literal

import attrs

from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import OnFail, PartialValidationResult, ValidationResult
from mellea_sc.stdlib.requirements.making import simple_validate
from mellea_sc.stdlib.requirements.watching import UNKNOWN, Piece, Watch, Watched

__all__ = ["CodeBlocks"]

LONGEST_LINE: Final = 256
"""Characters of a line that are looked at: no fence is longer."""

_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_OPENING: Final = re.compile(r"[ \t]*(?:(`{3,})([^`\n]*)|(~{3,})([^\n]*))\Z")
_END_OF_NAME: Final = re.compile(r"[\s{:,].*", re.DOTALL)
_MAY_OPEN: Final = re.compile(r"[ \t]*(?:`{0,2}|~{0,2}|`{3,}[^`\n]*|~{3,}[^\n]*)\Z")


class CodeBlocks(Watched):
    """Every fenced block of Markdown is in an allowed language, and none is left open at the end.

    A block's language is the first word after its fence, known as soon as that line is complete: a
    wrong one stops the stream before any character of the line is shown.

    Args:
        languages: Those that are allowed, in upper or lower case; ``""`` allows blocks that name
            none. ``None``: any or none may be named.
        check_only: The description stays out of the prompt.
        on_fail: What follows a fail, see :class:`Requirement`. With ``"filter"`` the whole block is left
            out.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: no language is allowed, or what should be a collection of names is not.
    """

    def __init__(
        self,
        languages: Collection[str] | None = None,
        *,
        check_only: bool = False,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        allowed = None if languages is None else _names(languages)
        said = "every code block is closed"
        if allowed is not None:
            names = " or ".join(name or "no language" for name in sorted(allowed))
            said = f"every code block is closed and says after its fence that it is in {names}"
        super().__init__(
            said,
            simple_validate(partial(_judge, allowed)),
            _BlockWatch(allowed),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.languages = allowed


@attrs.frozen
class _Fence:
    """An open block: its fence, and what is said of each piece of the block."""

    marks: str
    verdict: PartialValidationResult

    def is_closed_by(self, line: str) -> bool:
        said = line.strip()
        return len(said) >= len(self.marks) and not said.strip(self.marks[0])


class _BlockWatch(Watch):
    """Passes a text as it comes; only a line that may turn out to be a fence waits for its end."""

    def __init__(self, allowed: frozenset[str] | None) -> None:
        self._allowed = allowed
        self._held: list[str] = []
        self._line = ""  # its beginning
        self._line_is: Literal["unsure", "plain", "opening", "inside"] = "unsure"
        self.fence: _Fence | None = None

    def fresh(self) -> _BlockWatch:
        """A watch like this one that has seen no text."""
        return _BlockWatch(self._allowed)

    def feed(self, delta: str) -> Sequence[Piece]:
        """The text that is no fence, and the fences whose lines are complete."""
        pieces: list[Piece] = []
        for part in _LINE.findall(delta):
            self._take(part, pieces)
            if part.endswith("\n"):
                self._end_line()
        return pieces

    def flush(self) -> Sequence[Piece]:
        """The last line."""
        pieces: list[Piece] = []
        if self._line_is == "unsure":
            self._decide(pieces)
        self._end_line()
        return pieces

    def _take(self, part: str, pieces: list[Piece]) -> None:
        if len(self._line) < LONGEST_LINE:
            self._line = (self._line + part.removesuffix("\n"))[:LONGEST_LINE]
        if self._line_is != "unsure":
            _add(pieces, part, UNKNOWN if self.fence is None else self.fence.verdict)
            return
        self._held.append(part)
        is_complete = part.endswith("\n") or len(self._line) == LONGEST_LINE
        if is_complete or not _MAY_OPEN.match(self._line):
            self._decide(pieces)

    def _decide(self, pieces: list[Piece]) -> None:
        verdict = UNKNOWN
        self._line_is = "plain"
        if opening := _OPENING.match(self._line):
            info = opening[2] if opening[1] else opening[4]
            language = _END_OF_NAME.sub("", info.strip()).lower()
            if self._allowed is not None and language not in self._allowed:
                verdict = PartialValidationResult("fail", reason=_not_allowed(language))
            self.fence = _Fence(opening[1] or opening[3], verdict)
            self._line_is = "opening"
        _add(pieces, "".join(self._held), verdict)
        self._held = []

    def _end_line(self) -> None:
        could_close = self._line_is == "inside" and len(self._line) < LONGEST_LINE
        if self.fence is not None and could_close and self.fence.is_closed_by(self._line):
            self.fence = None
        self._line = ""
        self._line_is = "unsure" if self.fence is None else "inside"


def _add(pieces: list[Piece], text: str, verdict: PartialValidationResult) -> None:
    if pieces and pieces[-1].verdict is verdict:
        text = pieces.pop() + text
    if text:
        pieces.append(Piece.of(text, verdict))


def _names(languages: Collection[str]) -> frozenset[str]:
    names: list[object] = [] if isinstance(languages, str) else list(languages)
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidOption(f"languages must be a collection of names, not {languages!r}")
    return frozenset(str(name).lower() for name in names)


def _not_allowed(language: str) -> str:
    if not language:
        return "a code block does not say in which language it is"
    return f"a code block is in {language[:40]!r}, which is not allowed"


def _judge(allowed: frozenset[str] | None, text: str) -> ValidationResult:
    watch = _BlockWatch(allowed)
    for piece in (*watch.feed(text), *watch.flush()):
        if piece.verdict.success == "fail":
            return ValidationResult(False, reason=piece.verdict.reason)
    if watch.fence is not None:
        return ValidationResult(False, reason="a code block is left open")
    return ValidationResult(True)
