"""File descriptors and child processes, as the operating system sees them.

Where it does not tell (there is no ``/proc`` or ``/dev/fd``), there are none.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import stat
import sys
from pathlib import Path

__all__ = ["child_processes", "describe_descriptor", "open_descriptors"]

# Helpers that Python keeps for the life of the process.
_KEPT = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def open_descriptors() -> dict[int, str]:
    """The open file descriptors, and what each leads to."""
    folder = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
    found: dict[int, str] = {}
    _have_uvloop_open_its_pipe()
    with contextlib.suppress(OSError):
        for entry in os.listdir(folder):  # noqa: PTH208 # a list, whose own descriptor is closed by now
            with contextlib.suppress(OSError):
                descriptor = int(entry)
                status = os.fstat(descriptor)
                found[descriptor] = f"{status.st_dev}:{status.st_ino}"
                if sys.platform == "linux":
                    found[descriptor] = str((folder / entry).readlink())
    return found


@functools.cache
def _have_uvloop_open_its_pipe() -> None:
    # The first event loop of libuv's opens a pipe for the life of the process.
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()


def describe_descriptor(descriptor: int, leads_to: str) -> str:
    """What a file descriptor is, for people: a socket is named by its two ends."""
    with contextlib.suppress(OSError):
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return f"{descriptor} ({leads_to})"
        # The C class, whose making nobody watches, on a descriptor that it may close.
        sock = socket.SocketType(fileno=os.dup(descriptor))
        try:
            ends = [str(sock.getsockname())]
            with contextlib.suppress(OSError):
                ends.append(str(sock.getpeername()))
            family = socket.AddressFamily(sock.family).name
            return f"{descriptor} ({family} socket {' to '.join(ends)})"
        finally:
            sock.close()
    return f"{descriptor} ({leads_to})"


def child_processes() -> dict[int, str]:
    """The child processes of this one, and their commands."""
    me = os.getpid()
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):  # it has just ended
            # "pid (name) state parent …"; a name may hold spaces and brackets
            state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(parent) != me:
                continue
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
            if not any(kept in command for kept in _KEPT):
                found[int(folder.name)] = f"{command.strip()[:100]}{' (zombie)' * (state == 'Z')}"
    return found
