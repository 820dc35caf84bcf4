"""Options for checking a text while it is generated, and for showing it."""

from __future__ import annotations

import math
from typing import Final

import attrs

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.counts import check_count
from mellea_sc.core.errors import InvalidOption

__all__ = ["STREAM_DEFAULTS", "StreamOptions"]


def _or_infinite(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


@attrs.frozen(kw_only=True)
class StreamOptions:
    """How a text is checked while it is generated, and how it is shown.

    Args:
        chunking: The chunking of the stream, and of requirements without a chunking.
        lane_buffer: The number of chunks that one lane may be ahead of another.
        validator_timeout: Seconds that one call of a validator may take; ``None``, which becomes infinity: no timeout.
        lookahead: The number of released chunks that may wait unread; ``None``: any number.
        hold_back: The number of chunks that are held back until their attempt is accepted; ``True``: all.

    Raises:
        InvalidOption: one of them is not usable. The name of a chunking is checked only where it is used.
    """

    chunking: str | ChunkingStrategy | None = "sentence"
    lane_buffer: int = 16
    validator_timeout: float = attrs.field(default=120.0, converter=_or_infinite)
    lookahead: int | None = None
    hold_back: bool | int = False

    def __attrs_post_init__(self) -> None:
        check_count("lane_buffer", self.lane_buffer)
        check_count("lookahead", self.lookahead, or_none=True)
        timeout, held = self.validator_timeout, self.hold_back
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise InvalidOption(
                "validator_timeout must be a positive number of seconds or None, not "
                f"{self.validator_timeout!r}"
            )
        if not isinstance(held, int) or held < 0:
            raise InvalidOption(f"hold_back must be a bool or a number of chunks, not {held!r}")

    @property
    def held_back(self) -> float:
        """The number of chunks that are held back; may be infinite."""
        return math.inf if self.hold_back is True else self.hold_back


STREAM_DEFAULTS: Final = StreamOptions()
"""What is meant where an argument of a stream is not given."""
