"""What the tests of ready-made requirements share: how a text is judged, piece by piece and as a whole.

The *marks* of a text have one character for each of its own: ``x`` where it fails, ``.`` where it passes.
"""

from __future__ import annotations

from collections.abc import Sequence

from mellea_sc import Requirement, SimpleContext, start_session
from mellea_sc.core.backend import Backend
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib import StreamChunkingResult
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.stdlib.requirements.scanned import Piece
from mellea_sc.testing import ScriptedBackend


def pieces_of(requirement: Requirement, deltas: Sequence[str]) -> list[Piece]:
    """What a lane gets."""
    strategy = resolve_chunking(requirement.chunking)
    pieces = [piece for delta in deltas for piece in strategy.feed(delta)]
    pieces += strategy.flush()
    assert all(isinstance(piece, Piece) and piece for piece in pieces)
    assert "".join(pieces) == "".join(deltas)
    return [piece for piece in pieces if isinstance(piece, Piece)]


def marks(requirement: Requirement, deltas: Sequence[str]) -> str:
    """One mark for each character."""
    return "".join(
        ("x" if piece.verdict.success == "fail" else ".") * len(piece)
        for piece in pieces_of(requirement, deltas)
    )


def edited(requirement: Requirement, deltas: Sequence[str], on_fail: str) -> str:
    """What a reader gets where each failing piece is filtered or fixed."""
    shown: list[str] = []
    for piece in pieces_of(requirement, deltas):
        if piece.verdict.success != "fail":
            shown.append(piece)
        elif on_fail == "fix":
            assert piece.verdict.replacement is not None
            shown.append(piece.verdict.replacement)
    return "".join(shown)


def first(said: str) -> int | None:
    """Where the first fail is."""
    return said.find("x") if "x" in said else None


async def passes(requirement: Requirement, text: str, backend: Backend | None = None) -> bool:
    """Whether a whole text does."""
    ctx = SimpleContext().add("prompt").add(ModelOutputThunk.computed(text))
    return bool(await requirement.validate(backend or ScriptedBackend(), ctx))


async def streamed(
    requirement: Requirement, deltas: Sequence[str], chunking: str | None
) -> StreamChunkingResult:
    """A run over a text."""
    async with (
        start_session(backend=ScriptedBackend(list(deltas))) as m,
        m.stream("go", requirements=[requirement], chunking=chunking) as result,
    ):
        await result.acomplete()
    return result
