"""What is known of an answer besides its text, while it is generated: numbers, reasoning, tool calls."""

from __future__ import annotations

from mellea_sc.core.backend import Delta, Usage
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.tool_calls import ToolCall, ToolCallParts
from mellea_sc.core.usage import CHARACTERS

__all__ = ["AnswerRecord", "other_characters"]


class AnswerRecord:
    """What has come so far. The fields are those of :class:`~mellea_sc.core.GenerationInfo`."""

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
        """An estimate of the tokens of reasoning and tool calls: at least one for each delta."""
        self.reasoning_estimate: int = 0
        """The part of the estimate that is reasoning."""
        self._reasoning: list[str] | None = None
        self._calls: ToolCallParts | None = None

    def take(self, delta: Delta) -> None:
        """Add the reasoning and the tool calls of a delta."""
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
        """Take the usage and the finish reason of a delta, if it has them."""
        self.usage = delta.usage or self.usage
        self.finish_reason = delta.finish_reason or self.finish_reason

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return "".join(self._reasoning) if self._reasoning else ""

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls so far."""
        return self._calls.calls if self._calls is not None else ()

    def info(self) -> GenerationInfo:
        """What is known now, as a value; reasoning and tool calls are in it only after the answer has ended."""
        # joining the reasoning for every look at a running generation would make the work quadratic
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
    """The number of characters in the reasoning and the tool calls of a delta."""
    calls = sum(len(piece.name) + len(piece.arguments) for piece in delta.tool_calls)
    return len(delta.reasoning) + calls
