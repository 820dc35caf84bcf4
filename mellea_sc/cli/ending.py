"""How a command ends: its event loop, its errors as one line each, the outcome of an answer, and the exit status."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal, NoReturn, TypeVarTuple, Unpack, cast

import anyio
import attrs

from mellea_sc.core.errors import MelleaError, MissingExtra, UsageError
from mellea_sc.core.plain_text import harmless
from mellea_sc.runtime.loops.current import loop_options

if TYPE_CHECKING:
    from mellea_sc.stdlib.streaming.result import StreamChunkingResult

VALID: Final = 0
INVALID: Final = 1
USAGE: Final = 2
BACKEND: Final = 3
CUT_OFF: Final = 4
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
NOBODY_READS: Final = 141  # 128 + SIGPIPE

Args = TypeVarTuple("Args")

_OPTION_OF: Final = {
    "model_id": "--model",
    "base_url": "--base-url",
    "as api_key (or in OPENAI_API_KEY)": "in OPENAI_API_KEY",
    "the key as api_key, the header that it wants as headers=,": "the header that it wants with --headers-from,",
    "as verify=, or in SSL_CERT_FILE": "in SSL_CERT_FILE",
    "headers=": "--headers-from",
    "retries=": "--retries",
    "ModelOption.STREAM_TIMEOUT": "--timeout",
    "ModelOption.MAX_NEW_TOKENS": "--max-tokens",
    "ModelOption.TEMPERATURE": "--temperature",
    "ModelOption.SEED": "--seed",
    "ModelOption.SYSTEM_PROMPT": "--system",
}
"""Words for arguments in the library's errors, and the words for the options of the command instead."""
_OPTIONS: Final = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in _OPTION_OF))


def end_with(
    command: Callable[[Unpack[Args]], Awaitable[int]],
    *args: *Args,
    loop: Literal["asyncio", "trio"],
    debug: bool,
) -> NoReturn:
    """Run a command to its end and exit with the status that it returns, or that its error means."""
    try:
        if loop == "trio" and find_spec("trio") is None:
            raise MissingExtra("--loop trio needs trio: pip install 'mellea_sc[trio]'")
        options = loop_options() if loop == "asyncio" else {}
        status = anyio.run(command, *args, backend=loop, backend_options=options)
    except BaseException as error:  # noqa: ASYNC103, BLE001 - this is where every error ends
        status = _report(error, debug=debug)
    sys.exit(status)


def _report(error: BaseException, *, debug: bool) -> int:
    """Print an error, and return its exit status."""
    trace = "".join(traceback.format_exception(error)) if debug else ""
    errors = list(_leaves(error))
    if any(isinstance(one, BrokenPipeError) for one in errors):
        return give_up_output()
    if any(isinstance(one, KeyboardInterrupt) for one in errors):
        return INTERRUPTED
    try:
        print(harmless(trace), end="", file=sys.stderr)
        for one in errors:
            tell(one)
    except BrokenPipeError:
        return give_up_output()
    return USAGE if all(isinstance(one, UsageError) for one in errors) else BACKEND


def tell(error: BaseException) -> None:
    """Print an error as one line, with the command's options instead of the library's arguments."""
    from mellea_sc.cli.lines import say

    say(f"mellea-sc: {harmless(message_of(error))}")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error


def message_of(error: BaseException) -> str:
    """The message of an error, with the command's options instead of the library's arguments."""
    if isinstance(error, MelleaError):
        return _OPTIONS.sub(lambda found: _OPTION_OF[found[0]], str(error))
    return f"unexpected {type(error).__name__}: {error} (--debug shows where)"


def give_up_output() -> int:
    """End without an error where the output cannot be written, or nobody reads it; returns the status of the latter."""
    # Otherwise Python would try to write the buffered text at exit, print an error about that, and exit with 120.
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, file.fileno())
            os.close(nowhere)
    return NOBODY_READS


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
