"""Fenced code blocks in an answer: in an allowed language, and closed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from typing import Final

from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import OnFail, PartialValidationResult
from mellea_sc.stdlib.requirements.markdown import Lines, may_open
from mellea_sc.stdlib.requirements.scanned import UNKNOWN, Piece, ScannedRequirement, Scanner

LONGEST_LINE: Final = 256
"""The number of characters of a line that are examined: no fence is longer."""

_LINE: Final = re.compile(r"[^\n\r]*(?:\r\n|\n|\r)|[^\n\r]+")
_END_OF_NAME: Final = re.compile(r"[\s{:,].*", re.DOTALL)


class CodeBlocks(ScannedRequirement):
    """Every fenced code block is in an allowed language, and none is left open at the end.

    A block's language is the first word after its opening fence. It is known when that line is complete, so a
    language that is not allowed stops the stream before any character of the line is shown. Fences are recognised as
    in CommonMark: also in block quotes and list items, but not in lines that are indented by four columns or in HTML.

    Args:
        languages: The allowed languages, in upper or lower case; ``""`` allows blocks without a language.
            ``None``: any language, or none.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`. With ``"filter"`` the whole block is left
            out.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: ``languages`` is empty, or not a collection of strings.
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
        description = "every code block is closed"
        if allowed is not None:
            names = " or ".join(name or "no language" for name in sorted(allowed))
            description += f" and says after its fence that it is in {names}"
        super().__init__(
            description,
            _BlockScanner(allowed),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.languages = allowed


class _BlockScanner(Scanner):
    """Passes a text as it comes; only a line that may turn out to be a fence is held back until its end.

    ``_verdict`` is the verdict on the rest of the line, as soon as it is known; until then the line is ``_held``.
    """

    def __init__(self, allowed: frozenset[str] | None) -> None:
        self._allowed = allowed
        self._lines = Lines()
        self._held: list[str] = []
        self._decided: list[tuple[str, PartialValidationResult]] = []
        self._line = ""  # its first LONGEST_LINE characters; the others are in _rest
        self._rest: list[str] = []
        self._verdict: PartialValidationResult | None = None
        self._is_read = False
        self._after_return = False
        self._block = UNKNOWN  # the verdict on the open block

    def fresh(self) -> _BlockScanner:
        """A new scanner with the same settings."""
        return _BlockScanner(self._allowed)

    @property
    def is_open(self) -> bool:
        """Whether a block is open."""
        return self._lines.fence is not None

    def feed(self, delta: str) -> Sequence[Piece]:
        """The text that is no fence, and the fences whose lines are complete."""
        if self._after_return and delta:
            if delta[0] == "\n":
                assert self._verdict is not None
                self._decided.append(("\n", self._verdict))
                delta = delta[1:]
            self._after_return = False
            self._next_line()
        for part in _LINE.findall(delta):
            self._take(part)
        return self._pieces()

    def flush(self) -> Sequence[Piece]:
        """The last line."""
        if not self._after_return and self._line:
            self._decide()
        return self._pieces()

    def fault_in(self, text: str) -> str | None:
        """The reason why a whole text fails: a language that is not allowed, or a block that is left open."""
        scanner = self.fresh()
        for piece in (*scanner.feed(text), *scanner.flush()):
            if piece.verdict.success == "fail":
                return piece.verdict.reason
        return "a code block is left open" if scanner.is_open else None

    def _take(self, part: str) -> None:
        text = part.rstrip("\r\n")
        missing = LONGEST_LINE - len(self._line)
        self._line += text[:missing]
        self._rest.append(text[missing:])
        is_over = len(text) < len(part)
        if self._verdict is None:
            self._held.append(part)
            if not may_open(self._line):
                is_inside = self._lines.is_inside(self._line)
                self._release(self._block if is_inside else UNKNOWN)
            elif is_over or len(self._line) == LONGEST_LINE:
                self._decide()
        else:
            self._decided.append((part, self._verdict))
        if not is_over:
            return
        if not self._is_read:
            self._lines.read(self._line + "".join(self._rest))
        if part.endswith("\r"):
            self._after_return = True  # the line goes on if \n follows
        else:
            self._next_line()

    def _next_line(self) -> None:
        self._line = ""
        self._rest = []
        self._verdict = None
        self._is_read = False

    def _decide(self) -> None:
        """Decide about a line that is complete, or as long as a line is examined."""
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
            self._release(verdict)

    def _release(self, verdict: PartialValidationResult) -> None:
        self._verdict = verdict
        self._decided += [(part, verdict) for part in self._held]
        self._held = []

    def _pieces(self) -> Sequence[Piece]:
        """The decided text; neighbouring text with the same verdict is one piece."""
        decided, self._decided = self._decided, []
        if len(decided) == 1:  # the fast path, for nearly all deltas
            return (Piece.of(*decided[0]),)
        groups = itertools.groupby(decided, key=lambda part: id(part[1]))
        runs = [list(group) for _, group in groups]
        return [Piece.of("".join(text for text, _ in run), run[0][1]) for run in runs]


def _names(languages: Collection[str]) -> frozenset[str]:
    names: list[object] = [] if isinstance(languages, str) else list(languages)
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidOption(f"languages must be a collection of names, not {languages!r}")
    return frozenset(str(name).lower() for name in names)


def _not_allowed(language: str) -> str:
    if not language:
        return "a code block does not say in which language it is"
    return f"a code block is in {language[:40]!r}, which is not allowed"
