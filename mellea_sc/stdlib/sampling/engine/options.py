"""How a text is checked while it is generated, and how it is shown."""

from __future__ import annotations

import math
from typing import Final

import attrs

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import InvalidOption

__all__ = ["DEFAULT_LANE_BUFFER", "StreamOptions"]

DEFAULT_LANE_BUFFER: Final = 16


def _count_from(least: int, value: object) -> bool:
    return isinstance(value, int) and value >= least


@attrs.frozen(kw_only=True)
class StreamOptions:
    """How a text is checked while it is generated, and how it is shown.

    Args:
        chunking: The chunking that the reader sees, and requirements that have none of their own.
        lane_buffer: How many chunks one lane may be ahead of another.
        validator_timeout: Seconds for one call of a validator.
        lookahead: How many released chunks may wait unread; ``None``: any number.
        hold_back: How many chunks are held back until their attempt is accepted; may be infinite.

    Raises:
        InvalidOption: one of them is not usable.
    """

    chunking: str | ChunkingStrategy | None = "sentence"
    lane_buffer: int = DEFAULT_LANE_BUFFER
    validator_timeout: float = math.inf
    lookahead: int | None = None
    hold_back: float = 0

    @classmethod
    def checked(
        cls,
        *,
        chunking: str | ChunkingStrategy | None,
        lane_buffer: int,
        validator_timeout: float | None,
        lookahead: int | None,
        hold_back: bool | int,
    ) -> StreamOptions:
        """The options that a user gives: ``None`` stands for no timeout, and ``hold_back=True`` for all chunks.

        Raises:
            InvalidOption: one of them is not usable; a chunking's name is checked where it is used.
        """
        if not _count_from(1, lane_buffer):
            raise InvalidOption(f"lane_buffer must be an integer from 1 on, not {lane_buffer!r}")
        if lookahead is not None and not _count_from(1, lookahead):
            raise InvalidOption(
                f"lookahead must be an integer from 1 on or None, not {lookahead!r}"
            )
        if validator_timeout is not None and not validator_timeout > 0:
            raise InvalidOption(
                "validator_timeout must be a positive number of seconds or None, not "
                f"{validator_timeout!r}"
            )
        if not _count_from(0, hold_back):
            raise InvalidOption(
                f"hold_back must be a bool or a number of chunks, not {hold_back!r}"
            )
        return cls(
            chunking=chunking,
            lane_buffer=lane_buffer,
            validator_timeout=math.inf if validator_timeout is None else validator_timeout,
            lookahead=lookahead,
            hold_back=math.inf if hold_back is True else hold_back,
        )
