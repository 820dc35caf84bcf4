"""What is known about a generation besides its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from mellea_sc.core.tool_calls import ToolCall
from mellea_sc.core.usage import Usage

AT_LIMIT: Final = frozenset(
    {
        "length",
        "max_tokens",
        "max_output_tokens",
        "model_length",  # Mistral
        "model_context_window_exceeded",  # Anthropic, z.ai
    }
)
"""Finish reasons of an answer that has reached its maximum length."""
FILTERED: Final = frozenset(
    {
        "content_filter",
        "guardrail_intervened",  # Bedrock
        "refusal",  # Anthropic
        "sensitive",  # z.ai
        *("blocklist", "prohibited_content", "recitation", "safety", "spii"),  # Google
    }
)
"""Finish reasons of an answer that the provider did not want to be given."""


@attrs.frozen(kw_only=True)
class GenerationInfo:
    """What is known about a generation.

    Args:
        model: The model's name.
        provider: The kind of server.
        finish_reason: Why the model stopped (``"stop"``, ``"length"``, …).
        usage: Tokens of all attempts, as far as the server has reported them.
        time_to_first_token: Seconds from sending the request to the first text, reasoning or tool call.
        total_time: Seconds from sending the first request to the end.
        attempts: How many answers were generated.
        reasoning: The model's reasoning, once the answer has ended.
        tool_calls: The model's tool calls, once the answer has ended.
    """

    model: str = ""
    provider: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    time_to_first_token: float | None = None
    total_time: float | None = None
    attempts: int = 1
    reasoning: str = attrs.field(default="", repr=False)
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def is_broken_off(self) -> bool:
        """Whether the server has broken the answer off, so that its text may end in the middle of a word."""
        return self.is_at_limit or self._reason in FILTERED

    @property
    def is_at_limit(self) -> bool:
        """Whether the answer was broken off because it has reached its maximum length."""
        return self._reason in AT_LIMIT

    @property
    def _reason(self) -> str:
        """The finish reason without its details: Gemini's ``content_filter: RECITATION`` is a ``content_filter``."""
        return (self.finish_reason or "").partition(":")[0].strip().lower()

    def summary(self) -> str:
        """Model, tokens and time, as far as they are known, as the end of a line for people."""
        said = [self.model] if self.model else []
        if self.usage is not None:
            said.append(f"{self.usage.completion_tokens} tokens")
        if self.total_time is not None:
            said.append(f"{self.total_time:.1f} s")
        return "".join(f", {one}" for one in said)

    def summed_over(self, attempts: Sequence[GenerationInfo]) -> GenerationInfo:
        """This info with the usage and the total time summed over several attempts, of which this is one."""
        usages = [one.usage for one in attempts if one.usage is not None]
        return attrs.evolve(
            self,
            attempts=len(attempts),
            usage=sum(usages, Usage()) if usages else None,
            total_time=sum(one.total_time or 0.0 for one in attempts),
        )


NOTHING_KNOWN: Final = GenerationInfo()
