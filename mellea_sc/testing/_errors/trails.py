"""What a requirement says on a text, as something that can be compared; and what is kept in it.

A *trail* is the verdicts on a text as it streams, chunk by chunk, and then the final one, unless one of
them was a fail.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias, cast

import attrs

from mellea_sc.core.backend import Backend
from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult
from mellea_sc.runtime.checks.chunks import Grouped
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.stdlib.context import ChatContext

__all__ = [
    "FEW",
    "Trail",
    "about",
    "assert_untouched",
    "chunks_of",
    "cuts_of",
    "in_short",
    "state_of",
    "streamed",
    "trail_of",
    "validated",
]

Trail: TypeAlias = Sequence[str]

FEW: Final = 160
"""Characters of a text that can be cut, or cancelled, in very many ways."""
_ASKED: Final = ChatContext().add("Write something.")


async def trail_of(
    requirement: Requirement,
    text: str,
    backend: Backend,
    *,
    deltas: Sequence[str] | None = None,
    chunking: str | None = "sentence",
    tick: Callable[[], None] = lambda: None,
) -> Trail:
    """Judge a text as a run would."""
    said: list[str] = []
    with about(text):
        for chunk in chunks_of(requirement, [text] if deltas is None else deltas, chunking):
            said.append(await streamed(requirement, chunk, backend))
            if said[-1] == "fail":
                return said
            tick()
        said.append(await validated(requirement, text, backend))
    return said


def chunks_of(requirement: Requirement, deltas: Sequence[str], chunking: str | None) -> list[str]:
    """The pieces that it would judge: of its own chunking, if it has one, and so many at once as it says."""
    own = requirement.chunking
    strategy = resolve_chunking(chunking if own is None else own)
    if requirement.every > 1:
        strategy = Grouped(strategy, requirement.every)
    chunks = [chunk for delta in deltas for chunk in strategy.feed(delta)]
    return [*chunks, *strategy.flush()]


async def streamed(requirement: Requirement, chunk: str, backend: Backend) -> str:
    """Judge one chunk.

    Raises:
        AssertionError: that was no verdict.
    """
    verdict: object = await requirement.stream_validate(chunk, backend=backend, ctx=_ASKED)
    assert isinstance(verdict, PartialValidationResult), (
        f"stream_validate gave {verdict!r}, which is not a PartialValidationResult"
    )
    assert verdict.replacement is None or verdict.success == "fail", (
        f"a {verdict.success!r} came with a replacement: only what fails is replaced"
    )
    return verdict.success


async def validated(requirement: Requirement, text: str, backend: Backend) -> str:
    """Judge a finished text.

    Raises:
        AssertionError: that was no verdict.
    """
    ctx = _ASKED.add(ModelOutputThunk.computed(text))
    verdict: object = await requirement.validate(backend, ctx)
    assert isinstance(verdict, ValidationResult), (
        f"validate gave {verdict!r}, which is not a ValidationResult"
    )
    return "passed" if verdict else "failed"


@contextmanager
def about(text: str) -> Generator[None]:
    """Add to an error which text was judged."""
    try:
        yield
    except Exception as error:
        error.add_note(f"the text is {in_short(text)}")
        raise


def in_short(text: str) -> str:
    """The beginning of a text, for people."""
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def cuts_of(text: str) -> list[list[str]]:
    """The text as deltas, cut in several ways."""
    dice = random.Random(len(text))
    at = sorted(dice.choices(range(len(text) + 1), k=min(len(text), 30)))
    cuts = [[text], [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]]
    return [*cuts, list(text)] if len(text) <= FEW else cuts


def state_of(requirement: Requirement) -> Mapping[str, object]:
    """Its attributes, as something that can be compared later."""
    return {name: _still(value) for name, value in vars(requirement).items()}


def _still(value: object, depth: int = 5) -> object:
    # What is inside of containers is the requirement's own; other objects may well be shared.
    if depth and isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return [(_still(key, depth - 1), _still(inner, depth - 1)) for key, inner in items]
    if depth and isinstance(value, list | tuple | deque | set | frozenset):
        return [_still(inner, depth - 1) for inner in cast("Iterable[object]", value)]
    if isinstance(value, str | bytes | bytearray | int | float):
        return repr(value)
    return _Same(value)


@attrs.define(eq=False)
class _Same:
    """An object that is only itself."""

    thing: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.thing is self.thing


def assert_untouched(original: Requirement, before: Mapping[str, object], by: str) -> None:
    """Check that a requirement has the state that it had.

    Raises:
        AssertionError: naming the attributes that are others now.
    """
    after = state_of(original)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    assert not changed, f"{by} has changed {', '.join(changed)} of the original"
