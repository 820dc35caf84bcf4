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

    Cancellation: only the waiting ends; the generations go on.
    """
    thunks = list(dict.fromkeys(mots))
    failure: Exception | None = None

    async def wait(thunk: ModelOutputThunk) -> None:
        nonlocal failure
        try:
            await thunk.avalue()
        except Exception as error:  # noqa: BLE001 - raised below, once the others have ended
            if failure is None:
                failure = error
                waiting.cancel_scope.cancel("another thunk has failed")

    async with anyio.create_task_group() as waiting:
        for thunk in thunks:
            waiting.start_soon(wait, thunk)
    if failure is not None:
        await _cancel_all(thunks)
        raise failure


async def _cancel_all(thunks: list[ModelOutputThunk]) -> None:
    for thunk in thunks:
        thunk.cancel("another thunk that was waited for has failed")
    with anyio.CancelScope(shield=True):
        for thunk in thunks:
            await thunk.wait_finished()
