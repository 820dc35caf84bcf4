"""The options of ``mellea-sc`` and what they mean. Imported by ``main``; imports click alone."""

from __future__ import annotations

from typing import Literal

import click

__all__ = ["cli"]

LOOPS = ("asyncio", "trio")
BACKENDS = ("local", "ollama", "openai")
STRATEGIES = ("none", "reject", "repair", "backtrack", "race")
CHUNKINGS = ("sentence", "sentences", "word", "paragraph", "none")

EXIT_STATUS = """\b
Exit status:
  0    valid
  1    a check failed, while the text streamed or at the end
  2    wrong usage
  3    the backend failed, or whatever else
  130  interrupted (Ctrl-C)
"""

_debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
_headers = click.option(
    "--headers-from",
    metavar="FILE",
    help="Headers for the server, one `Name: value` a line. A file, for others can read a command line.",
)
_count = click.IntRange(min=1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mellea_sc", message="%(prog)s %(version)s")
def cli() -> None:
    """Text from a language model that is checked while it streams."""


@cli.command(epilog=EXIT_STATUS)
@click.argument("prompt")
@click.option("--max-sentences", type=_count, metavar="N", help="At most N sentences.")
@click.option("--max-words", type=_count, metavar="N", help="At most N words.")
@click.option(
    "--must-not",
    multiple=True,
    metavar="REGEX",
    help="No match of REGEX, not even the beginning of one, is shown. Repeatable.",
)
@click.option(
    "--require",
    multiple=True,
    metavar="TEXT",
    help="What must hold in words; the model judges at the end, so it must be one that can: the embedded "
    "one cannot. Repeatable.",
)
@click.option(
    "--chunking",
    type=click.Choice(CHUNKINGS),
    default="sentence",
    show_default=True,
    help="What is checked and released at a time.",
)
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="none",
    show_default=True,
    help="After a failed check: ask the same again, ask with the reasons, go on from the last good "
    "chunk; or have several answers race.",
)
@click.option("--attempts", type=_count, metavar="N", help="At most N attempts of the strategy.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="Default: MELLEA_SC_BACKEND, else local where it is installed, else ollama.",
)
@click.option("--model", help="Default: MELLEA_SC_MODEL, else one of the backend's choice.")
@click.option("--base-url", metavar="URL", help="Default: OLLAMA_HOST or OPENAI_BASE_URL.")
@_headers
@click.option("--system", metavar="TEXT", help="The system prompt.")
@click.option("--max-tokens", type=_count, metavar="N", help="At most N tokens of answer.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    help="0 is greedy; so one attempt of the embedded model is, by default.",
)
@click.option("--seed", type=int, help="For the same answer again.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="To wait for each piece of the answer. Default: 120.",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    metavar="N",
    help="How often a request that failed before its answer began is made again. Default: 3.",
)
@click.option("--loop", type=click.Choice(LOOPS), default="asyncio", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on standard output.")
@click.option(
    "--explain", is_flag=True, help="Say at the end what ended which attempt, and what it cost."
)
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, writable=True),
    metavar="FILE",
    help="Write a page that shows what ran when, and what ended it.",
)
@_debug
def run(
    prompt: str,
    max_sentences: int | None,
    max_words: int | None,
    must_not: tuple[str, ...],
    require: tuple[str, ...],
    chunking: Literal["sentence", "sentences", "word", "paragraph", "none"],
    strategy: Literal["none", "reject", "repair", "backtrack", "race"],
    attempts: int | None,
    backend: str | None,
    model: str | None,
    base_url: str | None,
    headers_from: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    timeout: float | None,
    retries: int | None,
    loop: Literal["asyncio", "trio"],
    as_json: bool,
    explain: bool,
    trace: str | None,
    debug: bool,
) -> None:
    """Stream the answer to PROMPT, as far as it passes the checks.

    The text goes to standard output, everything else to standard error. A key is read from
    OPENAI_API_KEY: it has no option, for other users could read it there.
    """
    from mellea_sc.cli.ending import end_with
    from mellea_sc.cli.run import RunSettings
    from mellea_sc.cli.run import run as run_stream

    settings = RunSettings(
        prompt=prompt,
        max_sentences=max_sentences,
        max_words=max_words,
        must_not=must_not,
        require=require,
        chunking=None if chunking == "none" else chunking,
        strategy=strategy,
        attempts=attempts,
        backend=backend,
        model=model,
        base_url=base_url,
        headers_from=headers_from,
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        timeout=timeout,
        retries=retries,
        as_json=as_json,
        explain=explain,
        trace=trace,
    )
    end_with(run_stream, settings, loop=loop, debug=debug)


@cli.command(
    epilog="""\b
Exit status:
  0    the backend that a session would get can be used
  3    it cannot
"""
)
@click.option("--loop", type=click.Choice(LOOPS), default="asyncio", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The findings as one JSON object.")
@_headers
@_debug
def doctor(
    loop: Literal["asyncio", "trio"], as_json: bool, headers_from: str | None, debug: bool
) -> None:
    """Say which backends can be used, and what to do about those that cannot."""
    from mellea_sc.cli.doctor import doctor as examine
    from mellea_sc.cli.ending import end_with

    end_with(examine, as_json, headers_from, loop=loop, debug=debug)
