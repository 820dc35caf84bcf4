"""Pieces of a text that carry verdicts, and the scanners that cut a text into them while it comes."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Final

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.requirement import PartialValidationResult

__all__ = ["UNKNOWN", "Piece", "PieceList", "Scanner"]

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
