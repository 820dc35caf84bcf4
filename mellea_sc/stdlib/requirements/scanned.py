r"""Requirements whose chunking is a scanner: it cuts the text into pieces that carry their verdicts.

A :class:`Scanner` reads the text as it comes and returns it in pieces, each with its verdict. The lane then only
takes the verdict from each piece. A failing piece is exactly the span that must not be there, so ``on_fail="filter"``
and ``"fix"`` remove that span and no more. Verdicts belong to positions in the text, and do not depend on where the
deltas were cut.

At the end of an incomplete text it is not known whether a pattern matches: a match may have begun there, and ``cat``
is no match of ``\bcat\b`` if ``egory`` follows. Text that is not decided is held back::

    text      │ decided: no match begins here │ undecided │
    lane      │ passed, may be shown          │ held back │
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Final

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import MissingExtra
from mellea_sc.core.requirement import (
    OnFail,
    PartialValidationResult,
    Requirement,
    ValidationResult,
)
from mellea_sc.stdlib.requirements.requirement import simple_validate

UNKNOWN: Final = PartialValidationResult("unknown")


class Piece(str):
    """A piece of the text with the verdict on it."""

    __slots__ = ("verdict",)

    verdict: PartialValidationResult

    @classmethod
    def of(cls, text: str, verdict: PartialValidationResult = UNKNOWN) -> Piece:
        """The text as a piece."""
        piece = cls(text)
        piece.verdict = verdict
        return piece


class PieceList(list[Piece]):
    """The pieces of a text, in order."""

    def add(self, text: str, verdict: PartialValidationResult = UNKNOWN) -> None:
        """Append a text as a piece, unless it is empty."""
        if text:
            self.append(Piece.of(text, verdict))


class Scanner(ChunkingStrategy):
    """A chunking strategy whose chunks carry verdicts; joined, they are the whole text.

    The methods from :attr:`is_idle` to :meth:`let_go` are a fast path, which :class:`NormalizingScanner` needs to
    release a character before it is known whether a combining mark follows. A scanner may leave them out.
    """

    @abc.abstractmethod
    def feed(self, delta: str) -> Sequence[Piece]:
        """The pieces that are decided by this delta."""

    def flush(self) -> Sequence[Piece]:
        """The rest of the pieces; the text has ended. None, unless the scanner holds text back."""
        return ()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held back and no span is open; false for scanners that do not know."""
        return False

    def passes(self, delta: str) -> bool:
        """The fast path of :meth:`feed`: take a delta and return true, if the whole delta passes and nothing is held
        back; otherwise, or if that is not known quickly, do nothing and return false.
        """
        del delta
        return False

    def lets_go(self, ends: Sequence[str]) -> bool:
        """Whether all held text passes, whichever of ``ends`` comes next."""
        del ends
        return False

    def let_go(self) -> Sequence[Piece]:
        """Release the held text as passed; the caller has asked :meth:`lets_go` before."""
        return ()

    def pieces_of(self, text: str) -> list[Piece]:
        """The pieces of a whole text; this scanner itself does not change."""
        scanner = self.fresh()
        return [*scanner.feed(text), *scanner.flush()]

    def fault_in(self, text: str) -> str | None:
        """The reason why a whole text fails; ``None`` if it passes."""
        verdicts = (piece.verdict for piece in self.pieces_of(text))
        return next((verdict.reason for verdict in verdicts if verdict.success == "fail"), None)

    @abc.abstractmethod
    def fresh(self) -> Scanner:
        """A new scanner with the same settings."""


class ScannedRequirement(Requirement):
    """A requirement with a scanner that validates the text while it streams.

    Args:
        description: The requirement in words.
        scanner: Cuts the text into pieces with verdicts; ``None``: only the whole text is validated.
        fault_in: Returns the reason why a whole text fails, or ``None`` if it passes; by default
            :meth:`Scanner.fault_in`. The other arguments are those of :class:`Requirement`.
    """

    def __init__(
        self,
        description: str,
        scanner: Scanner | None,
        fault_in: Callable[[str], str | None] | None = None,
        *,
        check_only: bool,
        on_fail: OnFail | None,
        blocking: bool,
    ) -> None:
        if fault_in is None:
            assert scanner is not None
            fault_in = scanner.fault_in
        super().__init__(
            description,
            simple_validate(partial(_validated, fault_in)),
            check_only=check_only,
            chunking=scanner,
            on_fail=on_fail,
            blocking=blocking,
        )
        self._scanner = scanner

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        """The verdict that the scanner gave a piece; any other text is scanned by itself."""
        if self._scanner is None:
            return UNKNOWN
        pieces = [chunk] if isinstance(chunk, Piece) else self._scanner.pieces_of(chunk)
        verdicts = [piece.verdict for piece in pieces]
        return next((verdict for verdict in verdicts if verdict.success == "fail"), UNKNOWN)


def _validated(fault_in: Callable[[str], str | None], text: str) -> ValidationResult:
    fault = fault_in(text)
    return ValidationResult(fault is None, reason=fault)


def import_extra(module: str, extra: str, what: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: The module.
        extra: The extra that installs it.
        what: What it is needed for, for the error.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{what} needs the package {module}: pip install 'mellea_sc[{extra}]'"
        ) from error
