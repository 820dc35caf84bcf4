"""What an answer has besides its text: the model's reasoning, and the calls that it wants to have made."""

from __future__ import annotations

from mellea_sc.core.backend import Delta
from mellea_sc.core.tool_calls import ToolCall, ToolCallParts
from mellea_sc.core.usage import CHARACTERS

__all__ = ["OtherParts", "other_characters"]


class OtherParts:
    """All of it that has come so far."""

    __slots__ = ("_calls", "_reasoning", "estimate", "reasoning_estimate")

    def __init__(self) -> None:
        self.estimate: int = 0
        """About how many tokens it has: at least one for each delta."""
        self.reasoning_estimate: int = 0
        """Those of the reasoning."""
        self._reasoning: list[str] = []
        self._calls = ToolCallParts()

    def take(self, delta: Delta) -> None:
        """Take what a delta has besides its text."""
        tokens = max(1, other_characters(delta) // CHARACTERS)
        self.estimate += tokens
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
            self.reasoning_estimate += tokens
        for piece in delta.tool_calls:
            self._calls.take(piece)

    @property
    def reasoning(self) -> str:
        """What the model thinks."""
        return "".join(self._reasoning)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls."""
        return self._calls.calls


def other_characters(delta: Delta) -> int:
    """How many characters a delta has besides its text."""
    calls = sum(len(piece.name) + len(piece.arguments) for piece in delta.tool_calls)
    return len(delta.reasoning) + calls
