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
    """Tokens, as the server counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )
