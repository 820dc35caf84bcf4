"""A component of named parts."""

from __future__ import annotations

from collections.abc import Sequence

from mellea_sc.core.base import Component, Span, text_of

__all__ = ["SimpleComponent"]


class SimpleComponent(Component):
    """Named texts, one after the other.

    Args:
        **kwargs: The texts by their names; may be thunks.
    """

    def __init__(self, **kwargs: Span) -> None:
        self._named = kwargs

    def parts(self) -> Sequence[Span]:
        """The texts."""
        return list(self._named.values())

    def format_for_llm(self) -> str:
        """The texts under their names."""
        return "\n\n".join(f"{name}:\n{text_of(text)}" for name, text in self._named.items())
