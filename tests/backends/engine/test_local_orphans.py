"""No child is left behind, whichever way its parent ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from local_help import FAKE_ENGINE, ends, runs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc of Linux")

PROGRAM = """
import os, signal, sys, anyio
from pathlib import Path
from mellea_sc.backends.engine import process

async def main(model, loop, behaviour, *command):
    Path(model).write_text(behaviour)
    spec = process.EngineSpec(Path(model), command)

    async def tell():
        while not process._engines:
            await anyio.sleep(0.001)
        engine = process._engines[spec]
        if behaviour == "serve":
            await engine.ready()
        else:  # the fake one is what runs by now, not the program that starts it
            command = Path(f"/proc/{engine.child.pid}/cmdline")
            while b"_lifeline" in (said := command.read_bytes()) or b"fake" not in said:
                await anyio.sleep(0.001)
        print(engine.child.pid, flush=True)

    async with anyio.create_task_group() as group:
        group.start_soon(tell)
        async with process.lease(spec):
            await anyio.sleep_forever()

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
anyio.run(main, *sys.argv[1:], backend=sys.argv[2])
"""

LEFT_OPEN = """
import sys
from pathlib import Path
from mellea_sc.backends.engine import process

Path(sys.argv[1]).write_text("serve")
engine = process._acquire(process.EngineSpec(Path(sys.argv[1]), tuple(sys.argv[2:])))
print(engine.child.pid, engine.child.directory, flush=True)
"""

FORKED = """
import os, sys, signal
from pathlib import Path
from mellea_sc.backends.engine import process

Path(sys.argv[1]).write_text("load")
engine = process._acquire(process.EngineSpec(Path(sys.argv[1]), tuple(sys.argv[2:])))
ready, told = os.pipe()
worker = os.fork()
if worker == 0:
    os.write(told, b"!")
    signal.pause()
os.read(ready, 1)
print(engine.child.pid, worker, flush=True)
signal.pause()
"""


@contextmanager
def parent(
    program: str, model: Path, *arguments: object
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(model), *map(str, arguments)],
        env={**os.environ, "TMPDIR": str(model.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("behaviour", ["serve", "load"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_engine_ends_with_a_parent_that_is_killed(
    tmp_path: Path, how: signal.Signals, behaviour: str, loop: str
) -> None:
    with parent(PROGRAM, tmp_path / "model.gguf", loop, behaviour, *FAKE_ENGINE) as (process, said):
        pid = int(said[0])
        assert runs(pid)
        process.send_signal(how)
        assert ends(pid)
        process.wait(10)


def test_the_engine_ends_with_a_parent_that_forgot_it(tmp_path: Path) -> None:
    with parent(LEFT_OPEN, tmp_path / "model.gguf", *FAKE_ENGINE) as (process, said):
        process.wait(10)
        assert not runs(int(said[0]))
        assert not Path(said[1]).exists()


def test_a_fork_of_the_parent_does_not_keep_the_engine_alive(tmp_path: Path) -> None:
    with parent(FORKED, tmp_path / "model.gguf", *FAKE_ENGINE) as (process, said):
        engine, worker = map(int, said)
        try:
            assert runs(engine)
            process.kill()
            assert ends(engine)
            assert runs(worker)
        finally:
            os.kill(worker, signal.SIGKILL)
