"""The command ``mellea-sc``: validated text from a model, on the terminal.

commands.py  the commands and their options; imports only click, so that --help is quick; reads --headers-from
ending.py    the event loop, errors as one line, the outcome of an answer, the exit status
asking.py    an answer: a session, a stream, its checks, Ctrl-C; `mellea-sc run`: one of them
chat.py      `mellea-sc chat`: a conversation, and its next line, from a person or a pipe
show.py      shows text, verdicts and events: on a terminal, in a pipe, as JSON lines
lines.py     lines that fit on a terminal
doctor.py    `mellea-sc doctor`: which backends can be used, and what to do about the others
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Run the command with the arguments of this process, and exit with its status."""
    _open_closed_streams()
    if missing := [name for name in ("click", "rich") if find_spec(name) is None]:
        print(
            f"mellea-sc: {' and '.join(missing)} not found: pip install 'mellea_sc[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    try:
        from mellea_sc.cli.commands import cli
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        cli(prog_name="mellea-sc")
    except OSError as error:  # the help, which click itself writes
        from mellea_sc.cli.ending import BACKEND, give_up_output

        print(f"mellea-sc: the output cannot be written: {error.strerror}", file=sys.stderr)
        give_up_output()
        sys.exit(BACKEND)


def _open_closed_streams() -> None:
    """Connect standard streams that the caller has closed with nothing.

    Otherwise the next file or socket would get the descriptor of one, and text for standard output might go there.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", encoding="utf-8"))
