"""The commands of ``mellea-sc`` and their options. Imports only click, so that --help is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, ParamSpec, TypedDict, Unpack

import click

P = ParamSpec("P")

LOOPS = ("asyncio", "trio")
BACKENDS = ("local", "ollama", "openai")
STRATEGIES = ("none", "reject", "repair", "backtrack", "race")
CHUNKINGS = ("sentence", "sentences", "word", "paragraph", "none")

EXIT_STATUS = """\b
Exit status:
  0    valid
  1    a check failed, while the text streamed or at the end
  2    wrong usage
  3    the backend failed, or any other error
  4    the checks passed, but the answer was cut off:
       by --max-tokens, by a limit of the model or its
       server, or by a content filter
  130  interrupted (Ctrl-C)
"""
CHAT_STATUS = """\b
Exit status:
  0    ended by /quit, Ctrl-D or the end of the input
  2    wrong usage
  3    any other error
  130  ended by Ctrl-C
\b
Where the lines come from a file or a pipe, also:
  1    a check of an answer failed
  3    the backend failed; what follows is not read
  4    no check failed, but an answer was cut off
"""

_debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
_loop = click.option("--loop", type=click.Choice(LOOPS), default="asyncio", show_default=True)
_headers = click.option(
    "--headers-from",
    metavar="FILE",
    help="File with headers for the server, one `Name: value` per line; other users cannot read them there.",
)
_count = click.IntRange(min=1)


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (
            KeyboardInterrupt
        ):  # while the library is imported; click itself would exit with status 1
            sys.exit(130)


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="mellea_sc", message="%(prog)s %(version)s")
def cli() -> None:
    """Text from a language model that is checked while it streams."""


class Settings(TypedDict):
    """The settings of the command line; ``None``: not given."""

    max_sentences: int | None
    max_words: int | None
    must_not: tuple[str, ...]
    require: tuple[str, ...]
    chunking: Literal["sentence", "sentences", "word", "paragraph", "none"]
    strategy: Literal["none", "reject", "repair", "backtrack", "race"]
    attempts: int | None
    backend: str | None
    model: str | None
    base_url: str | None
    headers_from: str | None
    system: str | None
    max_tokens: int | None
    temperature: float | None
    seed: int | None
    timeout: float | None
    retries: int | None
    as_json: bool
    explain: bool


_ASKING = (
    click.option("--max-sentences", type=_count, metavar="N", help="At most N sentences."),
    click.option("--max-words", type=_count, metavar="N", help="At most N words."),
    click.option(
        "--must-not",
        multiple=True,
        metavar="REGEX",
        help="No match of REGEX, not even the beginning of one, is shown. Repeatable.",
    ),
    click.option(
        "--require",
        multiple=True,
        metavar="TEXT",
        help="A requirement in words, which the model judges at the end. The embedded model cannot judge. "
        "Repeatable.",
    ),
    click.option(
        "--chunking",
        type=click.Choice(CHUNKINGS),
        default="sentence",
        show_default=True,
        help="The pieces in which the text is checked and released.",
    ),
    click.option(
        "--strategy",
        type=click.Choice(STRATEGIES),
        default="none",
        show_default=True,
        help="After a failed check: ask again (reject), ask again with the reasons (repair), or go on from the last "
        "good chunk (backtrack). With race, several answers are generated at once.",
    ),
    click.option(
        "--attempts", type=_count, metavar="N", help="At most N attempts of the strategy."
    ),
    click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        help="Default: MELLEA_SC_BACKEND, else local where it is installed, else ollama.",
    ),
    click.option("--model", help="Default: MELLEA_SC_MODEL, else the backend's default."),
    click.option("--base-url", metavar="URL", help="Default: OLLAMA_HOST or OPENAI_BASE_URL."),
    _headers,
    click.option("--system", metavar="TEXT", help="The system prompt."),
    click.option("--max-tokens", type=_count, metavar="N", help="At most N tokens of answer."),
    click.option(
        "--temperature",
        type=click.FloatRange(min=0),
        help="0 is greedy, and the default for the embedded model without a strategy.",
    ),
    click.option("--seed", type=int, help="With the same seed, the model gives the same answer."),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="The longest wait for each piece of the answer. Default: 120.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        metavar="N",
        help="How often a request is retried that failed before its answer began. Default: 3.",
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="Events as JSON lines on standard output."
    ),
    click.option(
        "--explain", is_flag=True, help="Show at the end what ended each attempt, and what it cost."
    ),
)
"""The common options of ``run`` and ``chat``; the fields of :class:`Settings`."""


def _asks(command: Callable[P, None]) -> Callable[P, None]:
    """Add the common options to a command."""
    for option in reversed(_ASKING):
        command = option(command)
    return command


@cli.command(epilog=EXIT_STATUS)
@click.argument("prompt")
@_asks
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, writable=True),
    metavar="FILE",
    help="Write an HTML page that shows what ran when, and what ended it.",
)
@_loop
@_debug
def run(
    prompt: str,
    trace: str | None,
    loop: Literal["asyncio", "trio"],
    debug: bool,
    **settings: Unpack[Settings],
) -> None:
    """Stream the answer to PROMPT, as far as it passes the checks.

    The text goes to standard output, everything else to standard error. The API key is read from OPENAI_API_KEY;
    there is no option for it, because other users can read a command line.
    """
    from mellea_sc.cli.asking import run as answer_once
    from mellea_sc.cli.ending import end_with

    end_with(answer_once, prompt, trace, settings, loop=loop, debug=debug)


@cli.command(epilog=CHAT_STATUS)
@_asks
@_loop
@_debug
def chat(loop: Literal["asyncio", "trio"], debug: bool, **settings: Unpack[Settings]) -> None:
    """Have a conversation: answer each line of standard input, as far as the answer passes the checks.

    Ctrl-C stops the answer but not the program. The conversation goes on without that turn, and without a turn that
    failed a check while it streamed. A second Ctrl-C at the prompt, Ctrl-D or /quit ends it.
    """
    from mellea_sc.cli.chat import chat as converse
    from mellea_sc.cli.ending import end_with

    end_with(converse, settings, loop=loop, debug=debug)


@cli.command(
    epilog="""\b
Exit status:
  0    the default backend can be used
  3    it cannot
"""
)
@_loop
@click.option("--json", "as_json", is_flag=True, help="The findings as one JSON object.")
@_headers
@_debug
def doctor(
    loop: Literal["asyncio", "trio"], as_json: bool, headers_from: str | None, debug: bool
) -> None:
    """Find out which backends can be used, and what to do about those that cannot."""
    from mellea_sc.cli.doctor import doctor as examine
    from mellea_sc.cli.ending import end_with

    end_with(examine, as_json, headers_from, loop=loop, debug=debug)


def headers_from(path: str | None) -> dict[str, str] | None:
    """Read headers from a file, where other users cannot read them as they can a command line.

    It has one ``Name: value`` per line; empty lines and lines with ``#`` are skipped.

    Raises:
        InvalidOption: the file cannot be read, or a line has no colon.
    """
    from mellea_sc.core.errors import InvalidOption

    if path is None:
        return None
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise InvalidOption(f"--headers-from: {path} cannot be read") from None
    headers: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        name, colon, value = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        if not colon:  # the line is not quoted, because it may be a key
            raise InvalidOption(f"--headers-from: line {number} of {path} is not like Name: value")
        headers[name.strip()] = value.strip()
    return headers
