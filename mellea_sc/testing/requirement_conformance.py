"""Does a requirement do what everybody relies on? Checks that it can be handed to.

Each promise of :class:`~mellea_sc.core.requirement.Requirement` has one check; the table at the end
names them. What is judged, and how that is compared, is in _errors/trails.py.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import anyio
import attrs

from mellea_sc.core.backend import Backend
from mellea_sc.core.requirement import Requirement
from mellea_sc.stdlib.session import start_session
from mellea_sc.testing._errors.trails import (
    FEW,
    Trail,
    about,
    assert_untouched,
    chunks_of,
    cuts_of,
    in_short,
    state_of,
    streamed,
    trail_of,
    validated,
)
from mellea_sc.testing._loops.wall_time import adjustable_clocks
from mellea_sc.testing._promises import check_promises
from mellea_sc.testing.everywhere import cancel_everywhere
from mellea_sc.testing.scripted import ScriptedBackend, Stall

__all__ = ["check_requirement"]

_TEXTS: Final = (
    "",
    "Yes.",
    " \n\t \n\n ",
    """The first sentence. The second one, of 3.14 words! Is this the third? (Perhaps.)

A paragraph of its own, e.g. with "quotes" and key=value pairs. It ends here""",
    '{"answer": "yes", "list": [1, 2.5, null], "text": "a \\"quoted\\" word"}',
    "Grüße, naïve café! 東京は晴れです。 مرحبا بالعالم. e\u0301\u200b\u202e 👩‍👩‍👧‍👦 \x00\x1b[31m",
    "one word after another, " * 20,
    "x" * 2000,
)
_HOUR: Final = 3600.0
_PATIENCE: Final = 5.0  # seconds for something that should happen at once


def _says_yes() -> Backend:
    return ScriptedBackend(lambda _: "yes", judge=lambda _: True)


async def check_requirement(
    make: Callable[[], Requirement],
    *,
    texts: Sequence[str] = _TEXTS,
    backend: Callable[[], Backend] = _says_yes,
    max_points: int | None = 40,
) -> None:
    """Check that a requirement keeps the promises that the library builds on.

    Args:
        make: Makes the requirement, anew at each call.
        texts: What is judged, in full and as it streams, at least one; by default some of each kind.
            Those that bring the requirement's own state to its limits say the most.
        backend: Makes what the requirement may ask; by default one whose judges say yes.
        max_points: At how many checkpoints, at most, judging is cancelled; ``None``: at all.

    Raises:
        AssertionError: the first promise that does not hold, and what happened instead.

    Cancellation: cancels the judging that is going on.
    """
    await check_promises(_PROMISES, _Subject(make, texts, backend, max_points))


@attrs.frozen
class _Subject:
    make: Callable[[], Requirement]
    texts: Sequence[str]
    backend: Callable[[], Backend]
    max_points: int | None

    @asynccontextmanager
    async def judges(self) -> AsyncGenerator[Backend]:
        async with start_session(backend=self.backend()) as session:
            yield session.backend

    async def trails(self, requirements: Callable[[], Requirement]) -> list[Trail]:
        """What requirements, one for each text, say."""
        async with self.judges() as backend:
            return [await trail_of(requirements(), text, backend) for text in self.texts]

    def short_text(self) -> str:
        """One that has something to judge and does not take long."""
        requirement = self.make()
        short = (text[:FEW] for text in self.texts)
        return max(short, key=lambda text: len(chunks_of(requirement, [text], "sentence")))


def _compare(subject: _Subject, what: str, trails: Sequence[Trail], usual: Sequence[Trail]) -> None:
    for text, trail, expected in zip(subject.texts, trails, usual, strict=True):
        assert trail == expected, (
            f"{what} said {_last(trail)} on {in_short(text)}, and a new requirement says {_last(expected)}"
        )


def _last(trail: Trail) -> str:
    counted = f" after {len(trail) - 1} chunks" if len(trail) > 1 else ""
    return f"{trail[-1]!r}{counted}"


# --- the checks ----------------------------------------------------------------------------------


async def _reads(subject: _Subject) -> None:  # noqa: ASYNC124 - a check like the others
    said: object = subject.make().format_for_llm()
    assert isinstance(said, str), f"it is {said!r}"


async def _judges_finished(subject: _Subject) -> None:
    async with subject.judges() as backend:
        for text in subject.texts:
            with about(text):
                await validated(subject.make(), text, backend)


async def _judges_running(subject: _Subject) -> None:
    async with subject.judges() as backend:
        for text in subject.texts:
            for chunking in ("sentence", "word", "paragraph"):
                await trail_of(subject.make(), text, backend, chunking=chunking)
            for deltas in cuts_of(text):
                await trail_of(subject.make(), text, backend, deltas=deltas, chunking=None)


async def _repeats_itself(subject: _Subject) -> None:
    usual = await subject.trails(subject.make)
    _compare(subject, "another one", await subject.trails(subject.make), usual)


async def _bears_any_cut(subject: _Subject) -> None:
    async with subject.judges() as backend:
        for text in subject.texts:
            ends: set[str] = set()
            for deltas in cuts_of(text):
                trail = await trail_of(subject.make(), text, backend, deltas=deltas)
                ends.add(trail[-1])
            assert len(ends) == 1, f"on {in_short(text)} it said {' or '.join(sorted(ends))}"


async def _copies(subject: _Subject) -> None:  # noqa: ASYNC124 - a check like the others
    original = subject.make()
    made: object = copy.copy(original)
    assert made is not original, "the copy is the original"
    assert type(made) is type(original), f"the copy is {made!r}"
    said, meant = made.format_for_llm(), original.format_for_llm()
    assert said == meant, f"the copy reads {said!r} in a prompt, the original {meant!r}"


async def _copies_are_independent(subject: _Subject) -> None:
    usual = await subject.trails(subject.make)
    original = subject.make()
    before = state_of(original)
    for _ in range(3):
        later = await subject.trails(lambda: copy.copy(original))
        assert_untouched(original, before, "judging with a copy")
        _compare(subject, "a copy, made after others had judged,", later, usual)
    async with subject.judges() as backend:
        for text, trail in zip(subject.texts, usual, strict=True):
            pair = copy.copy(original), copy.copy(original)
            await _judge_in_turn(pair, text, trail, backend)
    assert_untouched(original, before, "judging with two copies at once")


async def _judge_in_turn(
    pair: Sequence[Requirement], text: str, usual: Trail, backend: Backend
) -> None:
    for chunk, expected in zip(chunks_of(pair[0], [text], "sentence"), usual, strict=False):
        for requirement in pair:
            verdict = await streamed(requirement, chunk, backend)
            assert verdict == expected, (
                f"of two copies that judge {in_short(text)} at the same time one said {verdict!r} where "
                f"a new requirement says {expected!r}"
            )


async def _copies_go_on(subject: _Subject) -> None:
    async with subject.judges() as backend:
        for text in subject.texts:
            usual = await trail_of(subject.make(), text, backend)
            chunks = chunks_of(subject.make(), [text], "sentence")
            verdicts = usual[: len(chunks)]
            for at in sorted({0, len(verdicts) // 2, max(0, len(verdicts) - 1)}):
                first = copy.copy(subject.make())
                with about(text):
                    for chunk in chunks[:at]:
                        await streamed(first, chunk, backend)
                    second = copy.copy(first)
                    for one in (first, second):
                        said = [await streamed(one, c, backend) for c in chunks[at : len(verdicts)]]
                        assert said == list(verdicts[at:]), (
                            f"after {at} chunks it was copied, and from there the "
                            f"{'copy' if one is second else 'original'} said {said!r} where a new "
                            f"requirement says {list(verdicts[at:])!r}"
                        )


async def _ignores_the_clock(subject: _Subject) -> None:
    usual = await subject.trails(subject.make)
    names = {parent.__module__ for parent in type(subject.make()).__mro__}
    modules = [module for name in names if (module := sys.modules.get(name)) is not None]
    with adjustable_clocks(modules) as put_forward:
        async with subject.judges() as backend:
            later = [
                await trail_of(subject.make(), text, backend, tick=lambda: put_forward(_HOUR))
                for text in subject.texts
            ]
    _compare(subject, "with an hour between chunks, it", later, usual)


async def _stops(subject: _Subject) -> None:
    text = subject.short_text()

    async def stream(requirement: Requirement, backend: Backend) -> object:
        return await trail_of(requirement, text, backend)

    async def validate(requirement: Requirement, backend: Backend) -> object:
        return await validated(requirement, text, backend)

    for call in (stream, validate):
        for make_backend in (lambda: ScriptedBackend(lambda _: [Stall()]), subject.backend):
            await _cancel_where_it_waits(call, subject.make(), make_backend())


async def _cancel_where_it_waits(
    call: Callable[[Requirement, Backend], Awaitable[object]],
    requirement: Requirement,
    backend: Backend,
) -> None:
    scope = anyio.CancelScope()
    ended = anyio.Event()
    kept: list[object] = []

    async def run() -> None:
        try:
            with scope:
                async with start_session(backend=backend) as session:
                    verdict = await call(requirement, session.backend)
                    if scope.cancel_called:
                        kept.append(verdict)
        finally:
            ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, name=f"judging by {requirement!r}")
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        with anyio.move_on_after(_PATIENCE):
            await ended.wait()
        assert ended.is_set(), f"it went on for {_PATIENCE:g} s after it was cancelled"
    assert not kept, f"it was cancelled where it waited, and said {kept[0]!r}"


async def _is_cancelled_everywhere(subject: _Subject) -> None:
    text = subject.short_text()
    original = subject.make()
    before = state_of(original)

    async def program() -> Trail:
        async with subject.judges() as backend:
            return await trail_of(copy.copy(original), text, backend)

    async def another_copy_works() -> None:
        assert_untouched(original, before, "a cancelled copy")
        trail = await program()
        assert trail == usual, (
            f"another copy said {_last(trail)} on {in_short(text)}, and a new requirement says {_last(usual)}"
        )

    usual = await program()
    await cancel_everywhere(program, after_each=another_copy_works, max_points=subject.max_points)


async def _is_untouched_by_a_run(subject: _Subject) -> None:
    for text in subject.texts:
        original = subject.make()
        before = state_of(original)
        async with (
            start_session(backend=ScriptedBackend(text)) as session,
            session.stream(
                "Write something.", requirements=[original], validation_backend=subject.backend()
            ) as result,
        ):
            await result.acomplete()
        assert_untouched(original, before, "the run")


_Check: TypeAlias = Callable[[_Subject], Awaitable[None]]

_PROMISES: Final[dict[str, _Check]] = {
    "format_for_llm() gives a str": _reads,
    "validate() gives a ValidationResult for any text": _judges_finished,
    "stream_validate() gives a PartialValidationResult for any chunk": _judges_running,
    "the same text gets the same verdicts": _repeats_itself,
    "it does not matter where the deltas were cut": _bears_any_cut,
    "a copy is a requirement of the same kind": _copies,
    "a copy shares no state with the original or another copy": _copies_are_independent,
    "a copy made in the middle of a text goes on from there on its own": _copies_go_on,
    "the time that passes does not matter": _ignores_the_clock,
    "a call ends where it waits when it is cancelled": _stops,
    "a cancelled copy leaves nothing behind, and another one works": _is_cancelled_everywhere,
    "a run of stream_with_chunking leaves the original as it was": _is_untouched_by_a_run,
}
