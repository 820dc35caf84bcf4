"""Runs a command in an event loop, and turns its errors into one line each and an exit status."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import find_spec
from typing import Final, Literal, NoReturn, TypeVarTuple, Unpack, cast

import anyio

from mellea_sc.core.errors import MelleaError, MissingExtra, UsageError
from mellea_sc.core.plain_text import harmless
from mellea_sc.runtime.loops.current import loop_options

__all__ = [
    "BACKEND",
    "CUT_OFF",
    "INTERRUPTED",
    "INVALID",
    "USAGE",
    "VALID",
    "end_with",
    "message_of",
    "tell",
]

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
        _give_up_stdout()
        return NOBODY_READS
    if any(isinstance(one, KeyboardInterrupt) for one in errors):
        return INTERRUPTED
    print(harmless(trace), end="", file=sys.stderr)
    for one in errors:
        tell(one)
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


def _give_up_stdout() -> None:
    # Otherwise Python would try to write the buffered text at exit, and print an error about that.
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
