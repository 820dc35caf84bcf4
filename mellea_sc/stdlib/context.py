"""The two ways to remember a conversation: not at all, and all of it (or its newest part)."""

from __future__ import annotations

from typing import ClassVar, Self

from mellea_sc.core.base import Context, Span
from mellea_sc.core.errors import InvalidOption

__all__ = ["ChatContext", "Context", "SimpleContext"]


class SimpleContext(Context):
    """Forgets: every request starts anew. Keeps only the last exchange, for validating it."""

    __slots__ = ()

    remembers: ClassVar[int | None] = 2

    def view_for_generation(self) -> list[Span]:
        """Nothing."""
        return []


class ChatContext(Context):
    """Remembers what was said.

    Args:
        window_size: The model sees at most so many of the newest items (a question and its answer
            are two); ``None``: all.
    """

    __slots__ = ("window_size",)

    def __init__(self, *, window_size: int | None = None) -> None:
        super().__init__()
        if window_size is not None and window_size < 1:
            raise InvalidOption(f"window_size must be at least 1 or None, not {window_size!r}")
        self.window_size: int | None = window_size

    def without_items(self) -> Self:
        """A context with the same window in which nothing was said."""
        return type(self)(window_size=self.window_size)

    def view_for_generation(self) -> list[Span]:
        """The newest items, oldest first."""
        return self.as_list(self.window_size)
