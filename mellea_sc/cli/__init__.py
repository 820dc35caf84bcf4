"""The command ``mellea-sc``: validated text from a model, on the terminal.

commands.py   options and what they mean; imports click and nothing else, so that --help is quick
ending.py     event loop, errors as one line, exit status
run.py        `mellea-sc run`: a session, a stream, Ctrl-C
show.py       where its text and events go: a terminal, a pipe, JSON lines
lanes.py      the lanes and the summary, in lines for people
doctor.py     `mellea-sc doctor`: which backends there are, and what to do about the others
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
