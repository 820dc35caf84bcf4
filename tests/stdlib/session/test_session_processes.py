"""Forks, spawned processes and the interpreter's exit, with the real thing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

LIBRARY = """
    import os, signal, sys, threading, time
    from mellea_sc import *
    from mellea_sc.testing import Pause, ScriptedBackend, Stall
    signal.signal(signal.SIGINT, signal.default_int_handler)
    def session(**options):
        return start_session(backend=ScriptedBackend(lambda r: "hello"), **options)
    backends = []
    def stalled():
        backends.append(ScriptedBackend(lambda r: ["a ", Stall()]))
        return start_session(backend=backends[-1], model_options={ModelOption.STREAM_TIMEOUT: None})
    def until(true):
        while not true(): time.sleep(0.001)
"""


def program(
    source: str, *, interpreter: tuple[str, ...] = ("-W", "ignore::DeprecationWarning")
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [sys.executable, *interpreter, "-c", textwrap.dedent(LIBRARY) + textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=Path(__file__).parents[3],
        check=False,
    )


# --- forks --------------------------------------------------------------------------------------------

CHILDREN = """
    import asyncio
    def instructs(m): assert m.instruct("b").value == "hello"
    def closes(m): m.close()
    def leaves(m): m.__exit__(None, None, None)
    def cancels(m): m.cancel()
    def enters(m):
        with m: m.instruct("b")
    def awaits(m): assert str(asyncio.run(m.achat("b"))) == "hello"
    for child in (instructs, closes, leaves, cancels, enters, awaits):
        m = session(context_type={context_type!r})
        m.instruct("a")
        pid = os.fork()
        if pid == 0:
            child(m)
            print(child.__name__, flush=True)
            {leave}
        assert os.waitpid(pid, 0)[1] == 0
        assert m.instruct("again").value == "hello"
        m.close()
"""


@pytest.mark.parametrize("leave", ["os._exit(0)", "sys.exit(0)"])
@pytest.mark.parametrize("context_type", ["simple", "chat"])
def test_after_a_fork_the_child_starts_anew(leave: str, context_type: str) -> None:
    ended = program(textwrap.dedent(CHILDREN).format(leave=leave, context_type=context_type))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == ["instructs", "closes", "leaves", "cancels", "enters", "awaits"]


def test_a_fork_in_the_middle_of_another_threads_call_does_not_wait_for_that() -> None:
    ended = program(
        """
        m = start_session(backend=ScriptedBackend(lambda r: ["a ", Pause(1)]), context_type="chat")
        call = threading.Thread(target=lambda: m.instruct("a")); call.start()
        until(lambda: m._turns._line)
        pid = os.fork()
        if pid == 0:
            print(m.instruct("b").value, flush=True)
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        call.join()
        m.close()
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "a \n", "")


def test_a_fork_while_another_thread_debits_a_block_with_limits_does_not_wait_for_that() -> None:
    ended = program(
        """
        m = session()
        with limits(requests=2) as spent:
            m.instruct("a")
            with spent._budget._lock:  # as another thread may have it, at any moment
                pid = os.fork()
                if pid == 0:
                    print(m.instruct("b").value, spent.requests, flush=True)
                    try: m.instruct("c")
                    except BudgetExceeded: os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            m.instruct("b")
        m.close()
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "hello 2\n", "")


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_what_runs_in_a_loop_of_the_parent_is_refused_in_a_child(loop: str) -> None:
    ended = program(
        f"""
        import anyio
        async def main():
            async with stalled() as m:
                thunk, result = await m.ainstruct("?"), await m.stream("?")
                await anyio.wait_all_tasks_blocked()
                pid = os.fork()
                if pid == 0:
                    def run():
                        for use in (thunk.avalue, result.acomplete):
                            try: anyio.run(use)
                            except WrongEventLoop: print("refused", flush=True)
                    child = threading.Thread(target=run); child.start(); child.join()
                    os._exit(0)
                assert os.waitpid(pid, 0)[1] == 0
                m.cancel()
        anyio.run(main, backend={loop!r})
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "refused\nrefused\n", "")


POOL = """
    from mellea_sc import start_session
    from mellea_sc.testing import ScriptedBackend
    import multiprocessing, sys
    M = start_session(backend=ScriptedBackend(lambda r: "hello"))
    def work(number):
        return M.instruct("x").value
    if __name__ == "__main__":
        M.instruct("x")
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            assert pool.map(work, range(6)) == ["hello"] * 6
        M.instruct("x")
        M.close()
        print("done")
"""


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes_has_a_session_each(start: str, tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(textwrap.dedent(POOL))
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(script), start],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


# --- exits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [1, 4])
def test_at_the_interpreters_exit_a_call_in_a_daemon_thread_is_cancelled(others: int) -> None:
    ended = program(
        f"""
        sessions = [stalled() for _ in range({others})]
        def call(m):
            try: m.instruct("q")
            except SessionClosed: os.write(1, b"closed\\n")  # in one piece
        for one in sessions:
            threading.Thread(target=call, args=[one], daemon=True).start()
        until(lambda: all(backend.calls for backend in backends))
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert set(ended.stdout.split()) <= {"closed"}


def test_the_interpreters_exit_waits_a_bounded_time_for_what_cannot_be_cancelled() -> None:
    began = time.monotonic()
    ended = program(
        """
        from mellea_sc.runtime import loop_thread
        loop_thread.THREAD_TIMEOUT = 0.5
        m = session()
        computes = [Requirement("x", simple_validate(lambda _: began.set() or time.sleep(600)))]
        began = threading.Event()
        threading.Thread(target=m.instruct, args=["q"], kwargs={"requirements": computes}, daemon=True).start()
        began.wait()
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "")
    assert time.monotonic() - began < 60


def test_a_finalizer_of_what_is_garbage_already_may_make_a_call() -> None:
    ended = program(
        """
        import gc
        class Agent:
            def __init__(self): self.m = session()
            def __del__(self):
                print(self.m.instruct("bye").value)
                self.m.close()
        agent = Agent()
        agent.itself = agent
        del agent
        gc.collect()
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "hello\n", "")


@pytest.mark.parametrize("used", ["", "agent.m.instruct('q')"])
def test_a_call_in_a_finalizer_as_the_interpreter_is_taken_down_is_told_so(used: str) -> None:
    ended = program(
        f"""
        class Agent:
            def __init__(self): self.m = session()
            def __del__(self):
                try: self.m.instruct("bye")
                except SessionClosed as error: print(error)
                self.m.close()
        agent = Agent()
        {used}
        """
    )
    assert ended.returncode == 0
    assert ended.stdout.startswith("the interpreter is ending")


def test_a_call_at_exit_gives_a_value_or_says_that_no_thread_can_be_started() -> None:
    ended = program(
        """
        import atexit
        def ask():
            try: print(m.instruct("q").value)
            except SessionClosed as error: print("SessionClosed:", error)
            m.close()
        m = session()
        atexit.register(ask)
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "hello\n" or ended.stdout.startswith(
        "SessionClosed: the interpreter is ending"
    )


# --- Ctrl-C -------------------------------------------------------------------------------------------


def test_ctrl_c_twice_while_a_validator_computes_ends_the_program() -> None:
    ended = program(
        """
        def twice():
            for _ in range(2):
                began.wait()
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGINT)
        m, began = session(), threading.Event()
        threading.Thread(target=twice, daemon=True).start()
        computes = simple_validate(lambda _: began.set() or time.sleep(1) or True)
        try: m.instruct("q", requirements=[Requirement("x", computes)])
        except KeyboardInterrupt: print("KeyboardInterrupt", flush=True)
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "KeyboardInterrupt\n")


def test_ctrl_c_twice_that_breaks_off_the_loop_after_calls_in_threads_ends_the_program() -> None:
    ended = program(
        """
        import asyncio
        def interrupt(): raise KeyboardInterrupt
        async def main():
            loop, called = asyncio.get_running_loop(), asyncio.Event()
            def call():
                m.instruct("q")
                loop.call_soon_threadsafe(called.set)
            async with session() as m:
                threading.Thread(target=call, daemon=True).start()
                await called.wait()
            loop.call_soon(interrupt)
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                loop.call_soon(interrupt)
                await asyncio.sleep(100)
        try: asyncio.run(main())
        except KeyboardInterrupt: print("KeyboardInterrupt", flush=True)
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "KeyboardInterrupt\n")


def test_a_first_call_while_threads_are_being_ended_is_answered_or_told_so() -> None:
    ended = program(
        """
        m = session()
        def call():
            try: print(m.instruct("?").value)
            except SessionClosed: print("hello")  # where no thread can be started by then
            m.close()
        threading._register_atexit(call)
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "hello\n", "")


@pytest.mark.timeout(1600)
def test_signals_at_random_moments_hang_nothing() -> None:
    nightly = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
    ended = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            str(Path(__file__).with_name("interrupted.py")),
            *(["600", str(time.time_ns())] if nightly else ["20", "1"]),
        ],
        capture_output=True,
        text=True,
        timeout=1500 if nightly else 110,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


# --- closed standard streams ----------------------------------------------------------------------------


def test_a_process_with_closed_standard_streams_asks_and_ends_as_any_other() -> None:
    # as a daemon has them; uvloop, which is used where it is installed, aborts such a process
    ended = program("""
        for descriptor in range(2):
            os.close(descriptor)
        m = session()
        said = m.instruct("a").value
        m.close()
        print(said, file=sys.stderr, flush=True)
        os._exit(0)
    """)
    assert (ended.returncode, ended.stderr) == (0, "hello\n")
