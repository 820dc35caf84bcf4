"""What users compose: sessions, streams, components, requirements and strategies.

What Mellea exports from its ``stdlib`` can be imported from here too, but for ``stream``, which is a room here:
that is in ``streaming``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mellea_sc.stdlib.chunking import (
        ChunkingStrategy,
        ParagraphChunking,
        SentenceChunking,
        WordChunking,
    )
    from mellea_sc.stdlib.streaming import (
        ChunkEvent,
        CompletedEvent,
        ErrorEvent,
        FullValidationEvent,
        QuickCheckEvent,
        Streamer,
        StreamEvent,
        StreamingDoneEvent,
    )
else:
    from mellea_sc._lazy import importing

    __getattr__ = importing(
        __name__,
        {
            "mellea_sc.stdlib.chunking": (
                "ChunkingStrategy",
                "ParagraphChunking",
                "SentenceChunking",
                "WordChunking",
            ),
            "mellea_sc.stdlib.streaming": (
                "ChunkEvent",
                "CompletedEvent",
                "ErrorEvent",
                "FullValidationEvent",
                "QuickCheckEvent",
                "StreamEvent",
                "Streamer",
                "StreamingDoneEvent",
            ),
        },
    )

__all__ = [
    "ChunkEvent",
    "ChunkingStrategy",
    "CompletedEvent",
    "ErrorEvent",
    "FullValidationEvent",
    "ParagraphChunking",
    "QuickCheckEvent",
    "SentenceChunking",
    "StreamEvent",
    "Streamer",
    "StreamingDoneEvent",
    "WordChunking",
]
