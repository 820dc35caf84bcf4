"""Run as a script on Linux: ties the process to a pipe, then becomes the command it is given.

Standard input is a pipe whose other end only the parent holds, and into which nothing is ever
written. The kernel is told to kill our process group when something happens to that pipe, and
the one thing that can happen is that its other end is closed: the parent has ended, in whatever
way. No code of the command has to run for that, so it also holds while a library keeps the
interpreter locked. The settings belong to the open pipe, and outlive the change of program.

Imported by nobody.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys


def main(command: list[str]) -> None:
    """Tie this process to its standard input and become the command."""
    assert sys.platform == "linux"
    fcntl.fcntl(0, fcntl.F_SETOWN, -os.getpgrp())
    # SIGKILL cannot be blocked or ignored, whatever the parent had set for its children.
    fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | fcntl.FASYNC)
    if select.select([0], [], [], 0)[0]:
        sys.exit(1)  # the parent was gone before the pipe was watched
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
