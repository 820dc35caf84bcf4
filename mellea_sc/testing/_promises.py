"""Checking promises one after another, and saying which one is broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from mellea_sc.testing.leaks import assert_no_leaks

__all__ = ["check_promises"]

S = TypeVar("S")


async def check_promises(
    promises: Mapping[str, Callable[[S], Awaitable[None]]], subject: S
) -> None:
    """Check each promise, in order; none of the checks may leave anything behind.

    Raises:
        AssertionError: the first promise that does not hold, and what happened instead.
    """
    for promise, check in promises.items():
        try:
            async with assert_no_leaks():
                await check(subject)
        except AssertionError as broken:
            raise AssertionError(f"{promise}: {broken}{_notes(broken)}") from broken
        except Exception as error:
            raise AssertionError(f"{promise}: it raised {error!r}{_notes(error)}") from error


def _notes(error: Exception) -> str:
    return "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
