"""What is known of an answer besides its text, while it comes: numbers, reasoning, calls."""

from __future__ import annotations

from mellea_sc.core.backend import Delta, Usage
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.tool_calls import ToolCall, ToolCallParts
from mellea_sc.core.usage import CHARACTERS

__all__ = ["AnswerRecord", "other_characters"]


class AnswerRecord:
    """All of it that has come so far. The fields are those of :class:`~mellea_sc.GenerationInfo`."""

    __slots__ = (
        "_calls",
        "_reasoning",
        "estimate",
        "finish_reason",
        "model",
        "provider",
        "reasoning_estimate",
        "time_to_first_token",
        "total_time",
        "usage",
    )

    def __init__(self) -> None:
        self.model: str = ""
        self.provider: str = ""
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.time_to_first_token: float | None = None
        self.total_time: float | None = None
        self.estimate: int = 0
        """About how many tokens the reasoning and the calls have: at least one for each delta."""
        self.reasoning_estimate: int = 0
        """Those of the reasoning."""
        self._reasoning: list[str] | None = None
        self._calls: ToolCallParts | None = None

    def take(self, delta: Delta) -> None:
        """Take the reasoning and the calls of a delta."""
        tokens = max(1, other_characters(delta) // CHARACTERS)
        self.estimate += tokens
        if delta.reasoning:
            if self._reasoning is None:
                self._reasoning = []
            self._reasoning.append(delta.reasoning)
            self.reasoning_estimate += tokens
        for piece in delta.tool_calls:
            if self._calls is None:
                self._calls = ToolCallParts()
            self._calls.take(piece)

    def note(self, delta: Delta) -> None:
        """Take what a delta says of its answer."""
        self.usage = delta.usage or self.usage
        self.finish_reason = delta.finish_reason or self.finish_reason

    @property
    def reasoning(self) -> str:
        """What the model thinks."""
        return "".join(self._reasoning) if self._reasoning else ""

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls."""
        return self._calls.calls if self._calls is not None else ()

    def info(self) -> GenerationInfo:
        """What is known now, as a value: the reasoning and the calls are in it when the answer has ended."""
        has_ended = self.total_time is not None
        return GenerationInfo(
            model=self.model,
            provider=self.provider,
            finish_reason=self.finish_reason,
            usage=self.usage,
            time_to_first_token=self.time_to_first_token,
            total_time=self.total_time,
            reasoning=self.reasoning if has_ended and self._reasoning else "",
            tool_calls=self.tool_calls if has_ended and self._calls else (),
        )


def other_characters(delta: Delta) -> int:
    """How many characters a delta has besides its text."""
    calls = sum(len(piece.name) + len(piece.arguments) for piece in delta.tool_calls)
    return len(delta.reasoning) + calls
