"""The outcome of an answer, in words and as an exit status. Imports the library."""

from __future__ import annotations

from typing import Final

import attrs

from mellea_sc.cli.ending import BACKEND, CUT_OFF, INTERRUPTED, INVALID, VALID
from mellea_sc.core.plain_text import harmless
from mellea_sc.stdlib.streaming.result import StreamChunkingResult

__all__ = ["STOPPED", "Outcome", "details_of", "outcome_of"]


@attrs.frozen
class Outcome:
    """The outcome of an answer.

    Args:
        words: The outcome in words.
        style: The style of the words on a terminal.
        status: The exit status.
    """

    words: str
    style: str
    status: int


STOPPED: Final = Outcome("interrupted", "bold yellow", INTERRUPTED)
"""The outcome of an answer that was interrupted."""


def outcome_of(result: StreamChunkingResult, max_tokens: int | None) -> Outcome:
    """The outcome of a run; ``max_tokens`` is its limit, if it has one."""
    if result.error is not None:
        return Outcome("ended by an error", "bold red", BACKEND)
    if result.cancelled:
        return STOPPED
    if not result.completed:
        return Outcome("stopped by a failed check", "bold red", INVALID)
    if not all(result.final_validations):
        return Outcome("failed at the end", "bold red", INVALID)
    if result.generation.is_broken_off:
        words = _cut_off_by(result.finish_reason, max_tokens)
        return Outcome(words, "bold yellow", CUT_OFF)
    return Outcome("valid" if result.final_validations else "complete", "bold green", VALID)


def _cut_off_by(reason: str | None, max_tokens: int | None) -> str:
    if reason == "content_filter":
        return "cut off by the server's content filter"
    if max_tokens is None:
        return "cut off by a limit of the model or its server"
    return f"cut off by --max-tokens {max_tokens}"


def details_of(result: StreamChunkingResult) -> list[str]:
    """Tokens, times and other details, as far as they are known. The total time includes that of judges."""
    generation, said = result.generation, list[str]()
    if (usage := generation.usage) is not None:
        said.append(f"{usage.prompt_tokens} prompt + {usage.completion_tokens} answer tokens")
    if generation.time_to_first_token is not None:
        said.append(f"first after {generation.time_to_first_token:.2f} s")
    said.append(f"{result.trace.ended:.2f} s in all")
    if generation.finish_reason is not None:
        said.append(f"finish reason {harmless(generation.finish_reason)}")
    if generation.model:
        said.append(f"{harmless(generation.model)} ({generation.provider})")
    return said
