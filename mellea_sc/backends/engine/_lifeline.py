"""Run as a script on Linux: ties the process to a pipe, then becomes the command it is given.

Standard input is a pipe. Only the parent holds its other end, and never writes to it. The kernel is told to send
SIGKILL to our process group when something happens to the pipe. The only thing that can happen is that the other end
is closed, because the parent has ended, in whichever way. No code of the command has to run for that, so it also works
while a library holds the interpreter's lock. The settings belong to the open pipe, and so survive ``exec``.

Not imported by any module.
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
        sys.exit(1)  # the parent had ended before the signal was set up
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
