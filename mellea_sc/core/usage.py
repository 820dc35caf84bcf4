"""What a request used."""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["CHARACTERS", "Usage", "estimated_tokens"]

CHARACTERS: Final = 4
"""How many of them are taken for a token, where a server says nothing."""


def estimated_tokens(text: str) -> int:
    """How many tokens a text is taken for where nobody has counted: at least one."""
    return max(1, len(text) // CHARACTERS)


@attrs.frozen
class Usage:
    """Tokens, as the server counts them; 0 where it does not say.

    Args:
        prompt_tokens: What was read.
        completion_tokens: What was generated: text, reasoning and calls.
        cached_tokens: Those of the prompt that the server had read before.
        reasoning_tokens: Those of the completion that the model thought with.
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
