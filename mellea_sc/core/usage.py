"""The tokens that a request has used."""

from __future__ import annotations

from typing import Final

import attrs

CHARACTERS: Final = 4
"""Characters per token in estimates, where a server reports no tokens."""


def estimated_tokens(text: str) -> int:
    """An estimate of the number of tokens in a text: at least one."""
    return max(1, len(text) // CHARACTERS)


@attrs.frozen
class Usage:
    """Tokens, as the server counts them; 0 where it reports none.

    Args:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Generated tokens: text, reasoning and tool calls.
        cached_tokens: The part of the prompt that the server had cached.
        reasoning_tokens: The part of the completion that is reasoning.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )
