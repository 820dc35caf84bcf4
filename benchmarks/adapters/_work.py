"""What is the same for every library: the texts, the clocks, the memory, the server's process."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, perf_counter, process_time, sleep

__all__ = [
    "CALL",
    "LATE",
    "PACE",
    "Cannot",
    "Stopwatch",
    "peak_rss",
    "rss",
    "run_asyncio",
    "sentences",
    "wire_server",
    "words",
]

PACE = 0.02
"""Seconds between two deltas, where the row has a pace."""
LATE = 2.0
"""Seconds that the sibling's call takes when another requirement fails."""
CALL = 0.5
"""Seconds that one instruction takes."""
SERVER = Path(__file__).parent.parent / "wire_server.py"


class Cannot(Exception):
    """The library cannot do this; the message says why."""


def words(count):
    """Deltas of one word each; every twelfth ends a sentence."""
    return ["word " if index % 12 else "end. " for index in range(1, count + 1)]


def sentences(count):
    """Deltas of one sentence each."""
    return [f"This is sentence {index}. " for index in range(count)]


def run_asyncio(loop, main, *args):
    """Run an async function on asyncio, or on uvloop's event loop."""
    import asyncio

    if loop == "uvloop":
        import uvloop

        return uvloop.run(main(*args))
    return asyncio.run(main(*args))


def sleep_of(loop):
    """The sleep of a loop itself, whatever is measured on it."""
    if loop == "trio":
        import trio

        return trio.sleep
    import asyncio

    return asyncio.sleep


class Stopwatch:
    """Wall and CPU time from its making on."""

    def __init__(self):
        self.wall = perf_counter()
        self.cpu = process_time()

    def read(self, **more):
        return {"seconds": perf_counter() - self.wall, "cpu": process_time() - self.cpu, **more}


def _memory(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"this system does not tell {name}")


def rss():
    """Bytes of memory that this process has now."""
    return _memory("VmRSS")


def peak_rss():
    """Bytes of memory that this process had at most."""
    return _memory("VmHWM")


class WireServer:
    """The model server's process, seen from the child's."""

    def __init__(self, process):
        self.process = process
        self.url = f"http://127.0.0.1:{int(process.stdout.readline())}"

    def mark(self):
        """Have the server note this moment, and how much it has sent until then."""
        self.process.stdin.write(b"mark\n")
        self.process.stdin.flush()

    def report(self):
        """What the server saw."""
        self.process.stdin.write(b"report\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def seen_after(self, failed_at, knows_at):
        """After the fail: when the consumer knew, when the connection was closed, what was sent meanwhile."""
        sleep(0.2)
        report = self.report()
        [request] = [request for request in report["requests"] if request["sent_at"]]
        [mark] = report["marks"]
        return {
            "knows": knows_at - failed_at,
            "closed": (request["closed_at"] or monotonic()) - failed_at,
            "sent_after": len(request["sent_at"]) - mark["sent"],
        }


@contextmanager
def wire_server(texts, **more):
    """A model server that answers with these deltas."""
    import subprocess  # not needed by most, and some measure imports

    job = json.dumps({"texts": texts, **more})
    with subprocess.Popen(
        [sys.executable, str(SERVER), job], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield WireServer(process)
        finally:
            process.stdin.close()
            process.wait(10)
