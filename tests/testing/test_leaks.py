"""What a program leaves behind is found and named; what is not a leak is left in peace."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.streams.memory import MemoryObjectSendStream

from mellea_sc import InvalidOption
from mellea_sc.testing.clock import LoopName, run_virtual
from mellea_sc.testing.leaks import Leak, Leaked, LeakKind, assert_no_leaks

pytestmark = pytest.mark.anyio


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@contextlib.asynccontextmanager
async def leaking(kind: LeakKind) -> AsyncGenerator[list[Leak]]:
    """The block leaks exactly things of that kind."""
    found: list[Leak] = []
    with pytest.raises(Leaked) as caught:
        async with assert_no_leaks():
            yield found
    found.extend(caught.value.leaks)
    assert {leak.kind for leak in found} == {kind}, str(caught.value)


async def test_a_clean_program_is_clean() -> None:
    async with assert_no_leaks():
        send, receive = anyio.create_memory_object_stream[int](1)
        async with send, receive, anyio.create_task_group() as tg:
            tg.start_soon(send.send, 1)
            assert await receive.receive() == 1
        await anyio.to_thread.run_sync(time.sleep, 0)
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(b"x")
        await anyio.run_process([sys.executable, "-c", ""])


async def test_a_task_is_named_with_its_code() -> None:
    async def forgotten() -> None:
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tg:
        async with leaking("task") as leaks:
            tg.start_soon(forgotten, name="a forgotten one")
        tg.cancel_scope.cancel()
    (leak,) = leaks
    assert "'a forgotten one'" in leak.what
    assert "forgotten (testing/test_leaks.py:" in leak.what


async def test_a_task_that_was_there_before_is_not_a_leak() -> None:
    async with anyio.create_task_group() as tg:
        tg.start_soon(anyio.sleep_forever)
        async with assert_no_leaks():
            await anyio.lowlevel.checkpoint()
        tg.cancel_scope.cancel()


async def test_a_task_that_is_about_to_end_is_not_a_leak() -> None:
    async def ending() -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tg, assert_no_leaks():
        tg.start_soon(ending)


async def numbers() -> AsyncGenerator[int]:
    yield 1
    yield 2


async def test_a_suspended_async_generator_is_found_with_who_began_it() -> None:
    async with leaking("async generator") as leaks:
        generator = numbers()
        await anext(generator)
    await generator.aclose()
    (leak,) = leaks
    assert "numbers (testing/test_leaks.py:" in leak.what
    assert leak.where is not None
    assert "test_a_suspended_async_generator" in leak.where


@pytest.mark.filterwarnings("ignore:Async generator")  # trio says so, too
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_async_generator_left_to_the_garbage_collector_is_found() -> None:
    async with leaking("async generator") as leaks:
        async for _ in numbers():
            break
    (leak,) = leaks
    assert "forgotten, not closed, when suspended in numbers (testing/test_leaks.py:" in leak.what


async def test_an_async_generator_that_was_not_begun_or_has_ended_is_not_a_leak() -> None:
    async with assert_no_leaks():
        unbegun = numbers()
        assert [number async for number in numbers()] == [1, 2]
        closed = numbers()
        await anext(closed)
        await closed.aclose()
    del unbegun


async def test_an_open_memory_stream_is_found_with_who_made_it() -> None:
    async with leaking("memory stream") as leaks:
        send, receive = anyio.create_memory_object_stream[int](1)
        clone = send.clone()
        receive.close()
        send.close()
    (leak,) = leaks
    assert isinstance(clone, MemoryObjectSendStream)
    clone.close()
    assert "MemoryObjectSendStream" in leak.what
    assert leak.where is not None
    assert "test_an_open_memory_stream" in leak.where


async def test_a_socket_is_found_with_its_ends_and_who_made_it(cleanup: ExitStack) -> None:
    async with leaking("file descriptor") as leaks:
        listener = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
    (leak,) = leaks
    assert str(listener.getsockname()) in leak.what
    assert leak.where is not None
    assert "test_a_socket_is_found" in leak.where


async def test_an_open_file_is_found(cleanup: ExitStack) -> None:
    async with leaking("file descriptor") as leaks:
        cleanup.enter_context(open(__file__))  # noqa: ASYNC230, PTH123, SIM115
    assert __file__ in leaks[0].what


async def test_a_thread_is_found_with_what_it_does_and_who_started_it(cleanup: ExitStack) -> None:
    release = threading.Event()

    def lingering() -> None:
        release.wait()

    thread = threading.Thread(target=lingering, name="lingerer")
    cleanup.callback(thread.join)
    cleanup.callback(release.set)
    async with leaking("thread") as leaks:
        thread.start()
    (leak,) = leaks
    assert "'lingerer', now in " in leak.what
    assert "lingering (testing/test_leaks.py:" in leak.what
    assert leak.where is not None
    assert "test_a_thread_is_found" in leak.where


async def test_an_abandoned_worker_thread_is_found() -> None:
    release = threading.Event()

    def stuck() -> None:
        release.wait()

    try:
        async with leaking("thread") as leaks:
            with anyio.move_on_after(0.05):
                await anyio.to_thread.run_sync(stuck, abandon_on_cancel=True)
    finally:
        release.set()
    assert "stuck (testing/test_leaks.py:" in leaks[0].what


async def test_a_thread_that_is_about_to_end_is_not_a_leak() -> None:
    async with assert_no_leaks():
        threading.Thread(target=time.sleep, args=(0.1,)).start()


async def test_a_child_process_is_found_with_who_started_it(cleanup: ExitStack) -> None:
    async with leaking("child process") as leaks:
        process = _start(cleanup)
    (leak,) = leaks
    assert leak.what.startswith(f"{process.pid} ")
    assert "time.sleep(60)" in leak.what
    assert leak.where is not None
    assert "_start (testing/test_leaks.py:" in leak.where


def _start(cleanup: ExitStack) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    cleanup.callback(process.wait)
    cleanup.callback(process.kill)
    return process


async def test_an_error_of_the_program_is_raised_with_a_note_of_the_leaks() -> None:
    with pytest.raises(ValueError, match="the program's own") as caught:
        async with assert_no_leaks():
            _send, _receive = anyio.create_memory_object_stream[int]()
            raise ValueError("the program's own")
    assert "2 left behind" in caught.value.__notes__[0]
    _send.close()
    _receive.close()


async def test_an_error_of_a_clean_program_is_left_as_it_is() -> None:
    with pytest.raises(ValueError, match="the program's own") as caught:
        async with assert_no_leaks():
            raise ValueError("the program's own")
    assert not hasattr(caught.value, "__notes__")


async def test_a_cancelled_block_stays_cancelled() -> None:
    with anyio.CancelScope() as scope:
        async with assert_no_leaks():
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_blocks_may_be_nested() -> None:
    with pytest.raises(Leaked) as outer:
        async with assert_no_leaks():
            with pytest.raises(Leaked) as inner:
                async with assert_no_leaks():
                    generator = numbers()
                    await anext(generator)
                    streams = anyio.create_memory_object_stream[int]()
    assert [leak.kind for leak in inner.value.leaks] == [
        "async generator",
        "memory stream",
        "memory stream",
    ]
    assert len(outer.value.leaks) == 3
    await generator.aclose()
    for stream in streams:
        stream.close()


async def test_nothing_is_watched_after_the_block() -> None:
    hooks = sys.get_asyncgen_hooks()
    made: list[Callable[..., object]] = [
        socket.socket.__init__,
        threading.Thread.start,
        subprocess.Popen.__init__,
        MemoryObjectSendStream.__post_init__,
    ]
    async with assert_no_leaks():
        assert socket.socket.__init__ is not made[0]
    assert sys.get_asyncgen_hooks() == hooks
    assert made == [
        socket.socket.__init__,
        threading.Thread.start,
        subprocess.Popen.__init__,
        MemoryObjectSendStream.__post_init__,
    ]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_it_works_in_virtual_time(loop: LoopName, anyio_backend: object) -> None:
    async def program() -> float:
        async with assert_no_leaks():
            await anyio.to_thread.run_sync(time.sleep, 0.01)
            await anyio.sleep(3600)
        return anyio.current_time()

    assert run_virtual(program, backend=loop) >= 3600


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_system_task_of_trio_that_a_user_spawned_is_found(anyio_backend: object) -> None:
    import trio

    scope = trio.CancelScope()

    async def adopted() -> None:
        with scope:
            await trio.sleep_forever()

    async with leaking("task") as leaks:
        trio.lowlevel.spawn_system_task(adopted)
    scope.cancel()
    assert "adopted (testing/test_leaks.py:" in leaks[0].what


async def test_what_is_ignored_is_named_as_the_report_names_it(cleanup: ExitStack) -> None:
    release = threading.Event()
    cleanup.callback(release.set)
    async with assert_no_leaks(ignore=["thread 'kept'", "nothing like this"]):
        threading.Thread(target=release.wait, name="kept").start()
    with pytest.raises(Leaked, match="1 left behind") as caught:
        async with assert_no_leaks(ignore=["thread 'kept'"]):
            threading.Thread(target=release.wait, name="kept").start()
            threading.Thread(target=release.wait, name="forgotten").start()
    assert "'forgotten'" in caught.value.leaks[0].what


async def test_one_text_is_no_list_of_letters_to_ignore() -> None:
    with pytest.raises(InvalidOption, match="takes a list"):
        async with assert_no_leaks(ignore="kept"):
            raise AssertionError("not reached")


MONITOR = """
def run():
    while not killed.wait(10):
        pass
"""


async def test_the_monitor_of_tqdm_is_not_a_leak(cleanup: ExitStack) -> None:
    killed = threading.Event()
    cleanup.callback(killed.set)
    module: dict[str, object] = {"__name__": "tqdm._monitor", "killed": killed}
    exec(MONITOR, module)
    async with assert_no_leaks():
        threading.Thread(target=module["run"], name="tqdm_monitor", daemon=True).start()  # type: ignore[arg-type]


def test_the_pipe_that_uvloop_keeps_is_not_a_leak() -> None:
    pytest.importorskip("uvloop")
    program = """
        import anyio
        from mellea_sc.testing import assert_no_leaks

        async def main():
            async with assert_no_leaks():
                import uvloop
                uvloop.new_event_loop().close()

        anyio.run(main)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
