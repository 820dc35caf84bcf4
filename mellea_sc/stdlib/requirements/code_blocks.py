"""Fenced blocks of code in an answer: in an allowed language, and closed."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import OnFail, PartialValidationResult, ValidationResult
from mellea_sc.stdlib.requirements.making import simple_validate
from mellea_sc.stdlib.requirements.markdown import Lines, may_open
from mellea_sc.stdlib.requirements.scanned import UNKNOWN, Piece, ScannedRequirement, Scanner

__all__ = ["CodeBlocks"]

LONGEST_LINE: Final = 256
"""Characters of a line that are looked at: no fence is longer."""

_LINE: Final = re.compile(r"[^\n\r]*(?:\r\n|\n|\r)|[^\n\r]+")
_END_OF_NAME: Final = re.compile(r"[\s{:,].*", re.DOTALL)


class CodeBlocks(ScannedRequirement):
    """Every fenced block of Markdown is in an allowed language, and none is left open at the end.

    A block's language is the first word after its fence, known as soon as that line is complete: a
    wrong one stops the stream before any character of the line is shown. Fences are those of CommonMark: also
    in block quotes and list items, and not where a line is indented by four columns or stands in HTML.

    Args:
        languages: Those that are allowed, in upper or lower case; ``""`` allows blocks that name
            none. ``None``: any or none may be named.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`. With ``"filter"`` the whole block is left
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
            _BlockScanner(allowed),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.languages = allowed


class _BlockScanner(Scanner):
    """Passes a text as it comes; only a line that may turn out to be a fence waits for its end.

    ``_verdict`` is that on the rest of the line, as soon as it is known; until then the line is ``_held``.
    """

    def __init__(self, allowed: frozenset[str] | None) -> None:
        self._allowed = allowed
        self._lines = Lines()
        self._held: list[str] = []
        self._line = ""  # its beginning, and the rest:
        self._rest: list[str] = []
        self._verdict: PartialValidationResult | None = None
        self._is_read = False
        self._after_return = False
        self._block = UNKNOWN  # the verdict on what is in the open block

    def fresh(self) -> _BlockScanner:
        """A new scanner with the same settings."""
        return _BlockScanner(self._allowed)

    @property
    def is_open(self) -> bool:
        """Whether a block is."""
        return self._lines.fence is not None

    def feed(self, delta: str) -> Sequence[Piece]:
        """The text that is no fence, and the fences whose lines are complete."""
        said = _PieceList()
        if self._after_return and delta:
            if delta[0] == "\n":
                assert self._verdict is not None
                said.add("\n", self._verdict)
                delta = delta[1:]
            self._after_return = False
            self._next_line()
        for part in _LINE.findall(delta):
            self._take(part, said)
        return said.pieces()

    def flush(self) -> Sequence[Piece]:
        """The last line."""
        said = _PieceList()
        if not self._after_return and self._line:
            self._decide(said)
        return said.pieces()

    def _take(self, part: str, said: _PieceList) -> None:
        text = part.rstrip("\r\n")
        missing = LONGEST_LINE - len(self._line)
        self._line += text[:missing]
        self._rest.append(text[missing:])
        is_over = len(text) < len(part)
        if self._verdict is None:
            self._held.append(part)
            if not may_open(self._line):
                is_inside = self._lines.is_inside(self._line)
                self._release(self._block if is_inside else UNKNOWN, said)
            elif is_over or len(self._line) == LONGEST_LINE:
                self._decide(said)
        else:
            said.add(part, self._verdict)
        if not is_over:
            return
        if not self._is_read:
            self._lines.read(self._line + "".join(self._rest))
        if part.endswith("\r"):
            self._after_return = True  # a \n that comes next belongs to it
        else:
            self._next_line()

    def _next_line(self) -> None:
        self._line = ""
        self._rest = []
        self._verdict = None
        self._is_read = False

    def _decide(self, said: _PieceList) -> None:
        """What a line is that is known to its end, or as far as a line is looked at."""
        if self._is_read:
            return
        self._is_read = True
        line_is = self._lines.read(self._line)
        verdict = UNKNOWN if line_is == "plain" else self._block
        if line_is == "opening":
            assert self._lines.fence is not None
            language = _END_OF_NAME.sub("", self._lines.fence.info.strip()).lower()
            verdict = UNKNOWN
            if self._allowed is not None and language not in self._allowed:
                verdict = PartialValidationResult("fail", reason=_not_allowed(language))
            self._block = verdict
        if self._verdict is None:
            self._release(verdict, said)

    def _release(self, verdict: PartialValidationResult, said: _PieceList) -> None:
        self._verdict = verdict
        for part in self._held:
            said.add(part, verdict)
        self._held = []


class _PieceList:
    """Text with verdicts, put together to pieces."""

    def __init__(self) -> None:
        self._parts: list[tuple[PartialValidationResult, list[str]]] = []

    def add(self, text: str, verdict: PartialValidationResult) -> None:
        if self._parts and self._parts[-1][0] is verdict:
            self._parts[-1][1].append(text)
        elif text:
            self._parts.append((verdict, [text]))

    def pieces(self) -> list[Piece]:
        return [Piece.of("".join(parts), verdict) for verdict, parts in self._parts]


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
    scanner = _BlockScanner(allowed)
    for piece in (*scanner.feed(text), *scanner.flush()):
        if piece.verdict.success == "fail":
            return ValidationResult(False, reason=piece.verdict.reason)
    if scanner.is_open:
        return ValidationResult(False, reason="a code block is left open")
    return ValidationResult(True)
