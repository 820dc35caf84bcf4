"""Waiting for several thunks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import anyio

from mellea_sc.core.errors import InvalidOption
from mellea_sc.runtime.failures import add_note, raises_briefly
from mellea_sc.runtime.generation.generation import Generation
from mellea_sc.runtime.generation.thunk import ModelOutputThunk

__all__ = ["wait_for_all_mots"]


@raises_briefly
async def wait_for_all_mots(mots: Iterable[ModelOutputThunk]) -> None:
    """Wait until all of the thunks are computed.

    Args:
        mots: Any number of thunks, also none; duplicates and computed ones are fine.

    Raises:
        InvalidOption: it is no collection of thunks.
        Exception: the first failure, as itself. The thunks that were still running have been
            cancelled by then, and their cleanup has been waited for. Other failures among them stand in
            notes of the first, and count as observed.
        WrongEventLoop: one of them is being generated in another event loop; none is cancelled.

    Cancellation: only the waiting ends; the generations go on.
    """
    if not isinstance(mots, Iterable):
        raise InvalidOption(f"mots takes a list: mots=[{mots!r}]")
    thunks = list(dict.fromkeys(mots))
    for thunk in thunks:
        if not isinstance(thunk, ModelOutputThunk):
            raise InvalidOption(
                f"mots takes thunks, as `await m.ainstruct(…)` gives them, not {thunk!r}"
            )
    producers = [thunk.producer for thunk in thunks if thunk.producer is not None]
    for producer in producers:
        producer.check_awaitable()
    left = len(producers)
    failed: Generation | None = None
    settled = anyio.Event()

    def ended(producer: Generation) -> None:
        nonlocal left, failed
        left -= 1
        if failed is None and producer.state != "computed":
            failed = producer
        if not left or failed is not None:
            settled.set()

    try:
        for producer in producers:
            producer.stop_throttling()
            producer.add_ended_callback(ended)
        if producers:
            await settled.wait()
        # If the caller was cancelled together with the generations, this raises its own cancellation, which must not
        # be turned into an error.
        await anyio.lowlevel.checkpoint()
    finally:
        if left:
            for producer in producers:
                producer.remove_ended_callback(ended)
    if failed is not None:
        await _stop_all(producers)
        await anyio.lowlevel.checkpoint()
        raise _with_notes(failed.to_raise(), thunks)
    for thunk in thunks:
        thunk.mark_awaited()


async def _stop_all(producers: list[Generation]) -> None:
    for producer in producers:
        producer.stop("another thunk that was waited for has failed")
    with anyio.CancelScope(shield=True):
        for producer in producers:
            await producer.wait_finished()


def _with_notes(first: Exception, thunks: list[ModelOutputThunk]) -> Exception:
    """The first error with notes about the other ones, which count as observed by that."""
    for thunk in thunks:
        other = thunk.error
        if thunk.producer is not None:
            thunk.producer.own_error.mark_raised()
        if other is None or other is first:
            continue
        note = f"{thunk!r}, which was waited for as well: {_with_causes(other)}"
        if note not in getattr(first, "__notes__", ()):  # the same thunks may be waited for again
            add_note(first, note)
    return first


def _with_causes(error: BaseException) -> str:
    said = repr(error)
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        said = f"{group.message} ({'; '.join(map(_with_causes, group.exceptions))})"
    return said if error.__cause__ is None else f"{said} from {_with_causes(error.__cause__)}"
