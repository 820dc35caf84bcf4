"""The command ``mellea-sc``: validated text from a model, on the terminal.

commands.py      options and what they mean; imports click and nothing else, so that --help is quick
settings.py      what the options say that run and chat have in common
ending.py        event loop, errors as one line, exit status
run.py           `mellea-sc run`: one answer
chat.py          `mellea-sc chat`: a conversation
prompt.py        its next line, from a person or a pipe
asking.py        an answer: a session, a stream, its checks
interruption.py  what Ctrl-C means while it comes
show.py          where its text and events go: a terminal, a pipe, JSON lines
text_out.py      the text alone, on standard output
lanes.py         the verdicts, in lines for people
outcome.py       how it ended, in words and as a status
lines.py         lines that fit on a terminal
doctor.py        `mellea-sc doctor`: which backends there are, and what to do about the others
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Run the command with the arguments of this process, and exit with its status."""
    if missing := [name for name in ("click", "rich") if find_spec(name) is None]:
        print(
            f"mellea-sc: {' and '.join(missing)} not found: pip install 'mellea_sc[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    from mellea_sc.cli.commands import cli

    cli(prog_name="mellea-sc")
