"""What the tests of the embedded backend share."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from mellea_sc.core.backend import Backend, ChatMessage, Delta, GenerationRequest

FAKE_ENGINE = (sys.executable, "-P", str(Path(__file__).with_name("local_engine_fake.py")))


def runs(pid: int) -> bool:
    """Whether the process does anything still: one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def ends(pid: int, within: float = 5.0) -> bool:
    """Whether the process ends in time; if not, it is made to."""
    deadline = time.monotonic() + within
    while runs(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return False
        time.sleep(0.005)
    return True


def inside(directory: Path) -> list[Path]:
    """What is in a directory."""
    return list(directory.iterdir())


def replace(path: Path, content: str) -> None:
    """Put something else there."""
    path.write_text(content)


def asking(text: str = "Hello.", **options: object) -> GenerationRequest:
    return GenerationRequest((ChatMessage("user", text),), options)


async def answer(backend: Backend, request: GenerationRequest | None = None) -> list[Delta]:
    async with backend.open(request or asking()) as deltas:
        return [delta async for delta in deltas]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def overlook_late_readiness() -> None:
    """Let the running asyncio loop overlook that a cancelled wait for a unix socket was ready as well.

    anyio's unix streams set a future when the socket is ready, also where the wait was cancelled in the
    same turn of the loop, and the loop's exception handler is told (akin to anyio's issue 1267).
    Nothing is lost by that: the wait is over either way.
    """
    loop = asyncio.get_running_loop()
    told = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        late = isinstance(context.get("exception"), asyncio.InvalidStateError)
        if late and "set_result" in repr(context.get("handle")):
            return
        if told is None:
            loop.default_exception_handler(context)
        else:
            told(loop, context)

    loop.set_exception_handler(handle)
