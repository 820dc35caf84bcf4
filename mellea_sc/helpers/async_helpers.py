"""Waiting for several thunks."""

from __future__ import annotations

from collections.abc import Iterable

import anyio

from mellea_sc.runtime.thunk import ModelOutputThunk

__all__ = ["wait_for_all_mots"]


async def wait_for_all_mots(mots: Iterable[ModelOutputThunk]) -> None:
    """Wait until all of the thunks are computed.

    Args:
        mots: Any number of thunks, also none; duplicates and computed ones are fine.

    Raises:
        Exception: the first failure, as itself. The thunks that were still running have been
            cancelled by then, and their cleanup has been waited for.
        WrongEventLoop: one of them is being generated in another event loop; none is cancelled.

    Cancellation: only the waiting ends; the generations go on.
    """
    thunks = list(dict.fromkeys(mots))
    for thunk in thunks:
        thunk.check_loop()
    failed: ModelOutputThunk | None = None

    async def wait(thunk: ModelOutputThunk) -> None:
        nonlocal failed
        await thunk.wait_for_value()
        if failed is None and (thunk.error is not None or thunk.cancelled):
            failed = thunk
            waiting.cancel_scope.cancel("another thunk has failed")

    async with anyio.create_task_group() as waiting:
        for thunk in thunks:
            waiting.start_soon(wait, thunk)
    if failed is not None:
        await _cancel_all(thunks)
        await failed.avalue()


async def _cancel_all(thunks: list[ModelOutputThunk]) -> None:
    for thunk in thunks:
        thunk.cancel("another thunk that was waited for has failed")
    with anyio.CancelScope(shield=True):
        for thunk in thunks:
            await thunk.wait_finished()
