"""The engine's process: shared, stopped by its last user, and its death an error like any other."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from local_help import FAKE_ENGINE, inside, runs

from mellea_sc.backends.engine import process
from mellea_sc.backends.engine.process import EngineSpec, lease
from mellea_sc.core.errors import EngineError

pytestmark = pytest.mark.anyio

MakeSpec = Callable[[str], EngineSpec]


@pytest.fixture
def spec(tmp_path: Path) -> MakeSpec:
    def make(behaviour: str) -> EngineSpec:
        model = tmp_path / "model.gguf"
        model.write_text(behaviour)
        return EngineSpec(model, FAKE_ENGINE)

    return make


@pytest.fixture(autouse=True)
def private_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    where = tmp_path / "t"
    where.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(where))
    return where


async def test_everybody_shares_one_process_and_the_last_one_stops_it(spec: MakeSpec) -> None:
    async with lease(spec("serve")) as first:
        engine = await first.engine()
        async with lease(spec("serve")) as second:
            assert await second.engine() is engine
        assert runs(engine.child.pid)
    assert not runs(engine.child.pid)


async def test_those_who_start_at_once_share_one_start(spec: MakeSpec) -> None:
    pids: set[int] = set()
    met = anyio.Event()

    async def session() -> None:
        async with lease(spec("serve")) as held:
            pids.add((await held.engine()).child.pid)
            done.append(None)
            if len(done) == 5:
                met.set()
            await met.wait()

    done: list[None] = []
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(session)
    assert len(pids) == 1
    assert not any(runs(pid) for pid in pids)


async def test_event_loops_in_several_threads_share_a_process(
    spec: MakeSpec, anyio_backend_name: str
) -> None:
    pids: list[int] = []
    together = threading.Barrier(3, timeout=30)

    async def session() -> None:
        async with lease(spec("serve")) as held:
            pids.append((await held.engine()).child.pid)
            together.wait()

    threads = [
        threading.Thread(target=anyio.run, args=(session,), kwargs={"backend": anyio_backend_name})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 3
    assert len(set(pids)) == 1
    assert not runs(pids[0])


async def test_a_process_that_was_stopped_is_not_used_again(spec: MakeSpec) -> None:
    async with lease(spec("serve")) as held:
        first = (await held.engine()).child.pid
    async with lease(spec("serve")) as held:
        assert (await held.engine()).child.pid != first


async def test_different_models_have_different_processes(spec: MakeSpec, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_text("serve")
    async with lease(spec("serve")) as one, lease(EngineSpec(other, FAKE_ENGINE)) as two:
        assert (await one.engine()).child.pid != (await two.engine()).child.pid


async def test_nothing_is_left_on_the_disk(spec: MakeSpec, private_directories: Path) -> None:
    async with lease(spec("serve")):
        (directory,) = inside(private_directories)
        assert directory.stat().st_mode & 0o077 == 0
    assert not inside(private_directories)


async def test_an_engine_that_does_not_start_says_why(
    spec: MakeSpec, private_directories: Path
) -> None:
    with pytest.raises(EngineError, match=r"did not start \(exit status 3\)[^$]*about tensors"):
        async with lease(spec("exit")):
            pass
    assert not inside(private_directories)


@pytest.mark.parametrize(
    ("behaviour", "advice"),
    [
        ("error import No module named 'xllamacpp'", r"pip install 'mellea_sc\[local\]'"),
        ("error import libgomp.so.1: cannot open shared object file", "apt-get install libgomp1"),
        ("error load invalid magic", "did not start with .*model.gguf"),
    ],
)
async def test_a_start_that_cannot_succeed_comes_with_advice(
    spec: MakeSpec, behaviour: str, advice: str
) -> None:
    with pytest.raises(EngineError, match=advice):
        async with lease(spec(behaviour)):
            pass


async def test_a_command_that_is_not_there_is_an_engine_error(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_text("serve")
    with pytest.raises(EngineError, match="did not start"):
        async with lease(EngineSpec(model, (str(tmp_path / "nothing"),))):
            pass


async def test_the_start_is_bounded_in_time(
    spec: MakeSpec, private_directories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START_TIMEOUT", 0.2)
    with pytest.raises(EngineError, match="not ready within 0 seconds"):
        async with lease(spec("load")):
            pass
    assert not inside(private_directories)


async def test_everybody_who_waits_for_a_start_learns_of_its_failure(spec: MakeSpec) -> None:
    failures: list[EngineError] = []

    async def session() -> None:
        with pytest.raises(EngineError) as caught:
            async with lease(spec("exit")):
                pass
        failures.append(caught.value)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(session)
    assert len({str(failure) for failure in failures}) == 1
    assert len({id(failure) for failure in failures}) == 3


async def test_cancelling_a_start_stops_the_process(
    spec: MakeSpec, private_directories: Path
) -> None:
    async with anyio.create_task_group() as group:

        async def session() -> None:
            async with lease(spec("load")):
                raise AssertionError

        group.start_soon(session)
        await anyio.wait_all_tasks_blocked()
        (engine,) = process._engines.values()
        assert runs(engine.child.pid)
        group.cancel_scope.cancel()
    assert not runs(engine.child.pid)
    assert not inside(private_directories)


async def test_cancelling_a_start_leaves_the_process_to_those_who_wait_for_it(
    spec: MakeSpec,
) -> None:
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:

        async def impatient() -> None:
            with scope:
                async with lease(spec("serve")):
                    await anyio.sleep_forever()

        group.start_soon(impatient)
        await anyio.lowlevel.checkpoint()
        async with lease(spec("serve")) as held:
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert runs((await held.engine()).child.pid)


async def test_a_dead_engine_is_replaced_for_the_next_request(spec: MakeSpec) -> None:
    async with lease(spec("serve")) as held, lease(spec("serve")) as other:
        dead = await held.engine()
        os.kill(dead.child.pid, signal.SIGKILL)
        await dead.child.wait(5)
        engine = await held.engine()
        assert engine is not dead
        assert await other.engine() is engine
        assert not dead.child.directory.exists()
    assert not runs(engine.child.pid)


async def test_where_there_are_no_unix_sockets_it_is_loopback(
    spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_SOCKET_PATH_LIMIT", 5)
    async with lease(spec("serve")) as held:
        engine = await held.engine()
        assert engine.uds is None
        assert engine.url.startswith("http://127.0.0.1:")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc of Linux")
async def test_the_key_is_on_no_command_line_and_in_no_environment(spec: MakeSpec) -> None:
    async with lease(spec("serve")) as held:
        engine = await held.engine()
        process = Path(f"/proc/{engine.child.pid}")
        for name in ("cmdline", "environ"):
            assert engine.key.encode() not in (process / name).read_bytes()
