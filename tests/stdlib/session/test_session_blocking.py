"""The blocking half: same parameters and results, one thread that the session owns, Ctrl-C that cancels."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mellea_sc import (
    BackendError,
    GenerationCancelled,
    MelleaSession,
    Message,
    ModelOption,
    ModelOutputThunk,
    Requirement,
    SessionClosed,
    SyncCallInEventLoop,
    ValidationResult,
    start_session,
)
from mellea_sc.core.sampling import SamplingResult
from mellea_sc.runtime.loop_thread import Job, LoopThread
from mellea_sc.stdlib import Conversation
from mellea_sc.testing import Fail, Pause, Script, ScriptedBackend, Stall, Step

PAIRS = ["instruct", "chat", "act", "validate", "query", "transform"]
THREAD = "mellea_sc sync calls"


def quick() -> ScriptedBackend:
    return ScriptedBackend(lambda _: "done")


def good() -> Requirement:
    return Requirement("good", lambda _: ValidationResult(True))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD]


def arguments(name: str) -> tuple[object, ...]:
    return {"query": ({"a": 1}, "?"), "transform": ({"a": 1}, "?"), "validate": (good(),)}.get(
        name, ("?",)
    )


# --- the pairs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_has_the_same_parameters_and_the_same_result_type(name: str) -> None:
    blocking = getattr(MelleaSession, name)
    asynchronous = getattr(MelleaSession, f"a{name}")
    assert inspect.signature(blocking) == inspect.signature(asynchronous)
    assert inspect.iscoroutinefunction(asynchronous)
    assert not inspect.iscoroutinefunction(blocking)
    assert blocking.__name__ == name
    assert f"a{name}" in blocking.__doc__


@pytest.mark.parametrize("block", [True, False], ids=["block", "bare"])
def test_a_blocking_call_returns_what_its_a_method_leads_to(block: bool) -> None:
    m = start_session(backend=quick(), context_type="chat")
    if block:
        m.__enter__()
    results: dict[str, object] = {
        "instruct": m.instruct("?"),
        "act": m.act("?"),
        "query": m.query({"a": 1}, "?"),
        "transform": m.transform({"a": 1}, "?"),
    }
    for result in results.values():
        assert isinstance(result, ModelOutputThunk)
        assert result.is_computed()
        assert str(result) == result.value == "done"
    message = m.chat("?")
    assert isinstance(message, Message)
    assert str(message) == "done"
    assert all(m.validate([good(), good()]))
    assert isinstance(m.instruct("?", return_sampling_results=True), SamplingResult)
    streamed = m.instruct("?", model_options={ModelOption.STREAM: True})
    assert streamed.is_computed()
    assert len(m.ctx.as_list()) == 14
    if block:
        m.__exit__(None, None, None)
    else:
        m.close()
    assert not threads()


def test_blocking_calls_of_a_session_share_one_thread_which_ends_with_the_block() -> None:
    with start_session(backend=quick()) as m:
        assert not threads()
        m.instruct("?")
        m.instruct("?")
        assert threads() == [THREAD]
    assert not threads()
    with pytest.raises(SessionClosed):
        m.instruct("?")


@pytest.mark.parametrize("close", ["close", "cleanup"])
def test_close_and_cleanup_end_a_bare_session(close: str) -> None:
    m = start_session(backend=quick())
    m.instruct("?")
    getattr(m, close)()
    getattr(m, close)()
    assert not threads()
    with pytest.raises(SessionClosed, match="closed"):
        m.instruct("?")


def test_blocking_calls_have_conversations_that_several_threads_use_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=60)

    def meets(_: object) -> ValidationResult:
        both.wait()
        return ValidationResult(True)

    async def answers_meet(_: object) -> ValidationResult:
        return await anyio.to_thread.run_sync(meets, None)

    source = ScriptedBackend(lambda request: f"answer {len(request.messages)}")
    with start_session(backend=source) as m:
        ann, bob = m.conversation(), m.conversation()

        def talk(conversation: Conversation) -> list[str]:
            first = conversation.instruct("?", requirements=[Requirement("r", answers_meet)])
            return [first.value, str(conversation.chat("?")), conversation.act("?").value]

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(talk, [ann, bob])) == [["answer 1", "answer 3", "answer 5"]] * 2
        assert threads() == [THREAD]
        assert (len(ann.ctx.as_list()), len(m.ctx.as_list())) == (6, 0)
    with pytest.raises(SessionClosed):
        ann.chat("?")


def test_a_block_without_a_call_starts_no_thread() -> None:
    before = threading.active_count()
    with start_session(backend=quick()):
        assert threading.active_count() == before


def test_a_closed_session_that_was_never_used_is_closed() -> None:
    m = start_session(backend=quick())
    m.close()
    with pytest.raises(SessionClosed, match="closed"):
        m.instruct("?")


def test_calls_from_two_threads_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)

    async def meet(_: object) -> ValidationResult:
        await anyio.to_thread.run_sync(both.wait)
        return ValidationResult(True)

    answers: list[str] = []

    with start_session(backend=quick()) as m:

        def ask() -> None:
            answers.append(str(m.instruct("?", requirements=[Requirement("meet", meet)])))

        callers = [threading.Thread(target=ask) for _ in range(2)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert threads() == [THREAD]
    assert answers == ["done", "done"]


# --- errors -------------------------------------------------------------------------------------------


def test_a_failure_is_raised_as_itself_and_only_once() -> None:
    failure = BackendError("bad")
    with start_session(backend=ScriptedBackend(Fail(failure), "done")) as m:
        with pytest.raises(BackendError) as caught:
            m.instruct("?")
        assert caught.value is failure
        assert str(m.instruct("?")) == "done"


def test_an_exception_of_the_block_is_raised_as_itself() -> None:
    failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught, start_session(backend=quick()) as m:
        m.instruct("?")
        raise failure
    assert caught.value is failure
    assert not threads()


class Forgetful(Requirement):
    """Starts a generation that fails and does not wait for it."""

    async def validate(self, backend, ctx, *, format=None, model_options=None):  # type: ignore[no-untyped-def]
        await backend.generate_from_context("forgotten", ctx)
        await anyio.sleep(0.01)
        return ValidationResult(True)


def forgotten_fails() -> ScriptedBackend:
    return ScriptedBackend(
        lambda request: (
            Fail(BackendError("forgotten"))
            if request.messages[-1].content == "forgotten"
            else Script("done")
        )
    )


def test_an_error_that_nobody_observed_is_raised_when_the_block_is_left() -> None:
    with (
        pytest.raises(ExceptionGroup) as caught,
        start_session(backend=forgotten_fails()) as m,
    ):
        assert str(m.instruct("?", requirements=[Forgetful()])) == "done"
    assert [str(error) for error in caught.value.exceptions] == ["forgotten"]


def test_an_exception_of_the_block_and_unobserved_errors_are_raised_together() -> None:
    failure = ZeroDivisionError()
    with (
        pytest.raises(ExceptionGroup) as caught,
        start_session(backend=forgotten_fails()) as m,
    ):
        m.instruct("?", requirements=[Forgetful()])
        raise failure
    assert caught.value.exceptions[0] is failure
    assert str(caught.value.exceptions[1]) == "forgotten"


def test_ctrl_c_in_the_block_is_not_replaced_by_unobserved_errors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(KeyboardInterrupt), start_session(backend=forgotten_fails()) as m:
        m.instruct("?", requirements=[Forgetful()])
        raise KeyboardInterrupt
    assert "forgotten" in caplog.text


# --- event loops --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_blocking_call_inside_a_running_loop_names_the_a_method(name: str, loop: str) -> None:
    backend = quick()

    async def main() -> None:
        m = start_session(backend=backend)
        with pytest.raises(SyncCallInEventLoop, match=f"await m.a{name}"):
            getattr(m, name)(*arguments(name))

    anyio.run(main, backend=loop)
    assert not backend.calls
    assert not threads()


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_blocking_block_inside_a_running_loop_is_refused(loop: str) -> None:
    async def main() -> None:
        with pytest.raises(SyncCallInEventLoop, match="async with"):
            start_session(backend=quick()).__enter__()

    anyio.run(main, backend=loop)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("ending", ["block", "aclose"])
def test_other_threads_of_an_async_program_may_call_and_their_thread_ends_too(
    loop: str, ending: str
) -> None:
    async def main() -> None:
        m = start_session(backend=quick())
        if ending == "block":
            async with m:
                assert str(await anyio.to_thread.run_sync(m.instruct, "?")) == "done"
                assert threads()
        else:
            assert str(await anyio.to_thread.run_sync(m.instruct, "?")) == "done"
            with pytest.raises(SyncCallInEventLoop, match="aclose"):
                m.close()
            await m.aclose()
        assert not threads()

    anyio.run(main, backend=loop)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_async_block_that_no_thread_called_starts_no_thread(loop: str) -> None:
    async def main() -> None:
        async with start_session(backend=quick()) as m:
            await m.ainstruct("?")
        assert threading.active_count() == before

    before = threading.active_count()
    anyio.run(main, backend=loop)


def test_one_session_can_be_called_and_awaited_in_turn() -> None:
    m = start_session(backend=quick(), context_type="chat")

    async def main() -> None:
        assert str(await m.achat("b")) == "done"

    m.chat("a")
    anyio.run(main)
    m.chat("c")
    m.close()
    assert len(m.ctx.as_list()) == 6


# --- cancellation -----------------------------------------------------------------------------------------


class Started(ScriptedBackend):
    """Says when a request has begun."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        super().__init__(self._begin)

    def _begin(self, _: object) -> list[Step]:
        self.begun.set()
        return ["some ", Stall()]


def interrupt_main_thread() -> None:
    """Send this process's main thread what Ctrl-C sends.

    A signal to the process may be handled in the thread that sends it, and then wakes no other from its wait.
    """
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


def interrupt(backend: Started) -> threading.Thread:
    def run() -> None:
        assert backend.begun.wait(10)
        interrupt_main_thread()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("call", ["instruct", "chat", "act"])
def test_ctrl_c_in_a_blocking_call_cancels_the_generation_before_it_is_raised(call: str) -> None:
    backend = Started()
    m = start_session(backend=backend)
    helper = interrupt(backend)
    with pytest.raises(KeyboardInterrupt):
        getattr(m, call)("?")
    assert backend.calls[0].outcome == "cancelled"
    helper.join()
    m.close()
    assert not threads()


def test_ctrl_c_in_a_blocking_block_leaves_nothing() -> None:
    backend = Started()
    helper = interrupt(backend)
    with pytest.raises(KeyboardInterrupt), start_session(backend=backend) as m:
        m.instruct("?")
    assert backend.calls[0].outcome == "cancelled"
    helper.join()
    assert not threads()


def test_cancel_from_another_thread_ends_the_call() -> None:
    backend = Started()

    def cancel() -> None:
        assert backend.begun.wait(10)
        m.cancel("enough")

    m = start_session(backend=backend)
    helper = threading.Thread(target=cancel)
    helper.start()
    with pytest.raises(GenerationCancelled, match="enough"):
        m.instruct("?")
    helper.join()
    with pytest.raises(SessionClosed, match="enough"):
        m.instruct("?")
    m.close()
    assert not threads()


def test_cancel_of_a_session_that_runs_nowhere_makes_it_unusable() -> None:
    m = start_session(backend=quick())
    m.cancel("never mind")
    with pytest.raises(SessionClosed, match="never mind"):
        m.instruct("?")


# --- the end of the program --------------------------------------------------------------------------------


def program(source: str, *, interpreter: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *interpreter, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[3],
        check=False,
    )


def test_a_session_that_is_never_closed_does_not_keep_the_interpreter() -> None:
    ended = program(
        """
        from mellea_sc import start_session
        from mellea_sc.testing import ScriptedBackend
        m = start_session(backend=ScriptedBackend("done"))
        print(m.instruct("?"))
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_a_session_that_is_never_closed_is_told_of_where_such_warnings_are_shown() -> None:
    ended = program(
        """
        import gc
        from mellea_sc import start_session
        from mellea_sc.testing import ScriptedBackend
        m = start_session(backend=ScriptedBackend("done"))
        print(m.instruct("?"))
        del m
        gc.collect()
        """,
        interpreter=("-W", "always::ResourceWarning"),
    )
    assert ended.returncode == 0
    assert "ResourceWarning: unclosed session" in ended.stderr
    assert ended.stderr.count("unclosed session") == 1
    assert "m.close()" in ended.stderr


def test_the_thread_ends_with_a_session_that_is_forgotten() -> None:
    ended = program(
        """
        import gc, threading
        from mellea_sc import start_session
        from mellea_sc.testing import ScriptedBackend
        start_session(backend=ScriptedBackend("done")).instruct("?")
        gc.collect()
        print(threading.active_count())
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1\n", "")


def test_a_session_forgotten_inside_an_event_loop_does_not_block_it() -> None:
    ended = program(
        """
        import asyncio, gc, threading
        from mellea_sc import start_session
        from mellea_sc.testing import ScriptedBackend
        async def main():
            m = start_session(backend=ScriptedBackend("done"))
            await asyncio.to_thread(m.instruct, "?")
            del m
            gc.collect()
            while any(thread.name == "mellea_sc sync calls" for thread in threading.enumerate()):
                gc.collect()  # the thread that called may have held the session a little longer
                await asyncio.sleep(0.001)
        asyncio.run(main())
        print("ended")
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ended\n", "")


INTERRUPTED = """
import os, signal, sys, threading
from mellea_sc import start_session
from mellea_sc.testing import ScriptedBackend, Stall
backend = ScriptedBackend(["some ", Stall()])
def interrupt():
    while not (backend.calls and backend.calls[0].deltas_sent):
        pass
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
m = start_session(backend=backend)
try:
    {call}
finally:
    print(backend.calls[0].outcome, flush=True)
"""


@pytest.mark.parametrize("call", ['m.instruct("?")', 'with m: m.instruct("?")'])
def test_ctrl_c_ends_a_program_that_waits_in_a_blocking_call(call: str) -> None:
    ended = program(INTERRUPTED.format(call=call))
    assert ended.stdout == "cancelled\n"
    assert ended.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in ended.stderr


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("where", ["the program", "a backend that computes"])
def test_ctrl_c_ends_an_async_program_with_a_bare_session(loop: str, where: str) -> None:
    ended = program(
        f"""
        import os, signal, time, anyio
        from mellea_sc import start_session
        from mellea_sc.testing import ScriptedBackend, Stall
        class Computes(ScriptedBackend):
            def open(self, request):
                if {where!r} != "the program":
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.1)
                return super().open(request)
        backend = Computes(["some ", Stall()])
        async def main():
            m = start_session(backend=backend)
            await m.ainstruct("?")
            await anyio.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.sleep(20)
        try:
            anyio.run(main, backend={loop!r})
        finally:
            print([call.outcome for call in backend.calls])
        """
    )
    assert ended.returncode == -signal.SIGINT
    assert ended.stdout in ("['cancelled']\n", "[]\n")
    assert "nobody observed" not in ended.stderr


def test_a_close_that_is_interrupted_cancels_what_it_waited_for() -> None:
    backend = ScriptedBackend(lambda _: ["some ", Pause(60)])

    async def start(m: MelleaSession) -> None:
        await m.ainstruct("?")
        await anyio.wait_all_tasks_blocked()

    m = start_session(backend=backend)
    m.run_blocking(lambda: start(m))
    timer = threading.Timer(0.2, interrupt_main_thread)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        m.close()
    timer.join()
    assert backend.calls[0].outcome == "cancelled"
    assert not threads()


# --- the thread -------------------------------------------------------------------------------------------


def test_an_event_loop_that_cannot_be_made_is_the_calls_error_and_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_loop(*_: object, **__: object) -> None:
        raise OSError("too many open files")

    with start_session(backend=quick()) as m:
        with monkeypatch.context() as patch:
            patch.setattr(anyio, "run", no_loop)
            with pytest.raises(OSError, match="too many open files"):
                m.instruct("?")
        assert not threads()
        assert str(m.instruct("?")) == "done"


def test_an_exit_in_what_a_call_runs_is_raised_by_the_call_and_ends_the_thread() -> None:
    def leave(_: object) -> ValidationResult:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught, start_session(backend=quick()) as m:
        m.instruct("?", requirements=[Requirement("leave", leave)])
    assert caught.value.code == 3
    assert not threads()


def test_a_thread_that_cannot_be_started_is_the_calls_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with start_session(backend=quick()) as m:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                m.instruct("?")
        assert str(m.instruct("?")) == "done"
    assert not threads()


def test_ctrl_c_before_the_first_step_of_a_call_asks_the_model_nothing() -> None:
    backend = quick()
    held, submitted, released = threading.Event(), threading.Event(), threading.Event()
    in_time: list[bool] = []

    async def hold_the_loop() -> None:
        loop = asyncio.get_running_loop()
        call_soon_threadsafe = loop.call_soon_threadsafe

        def counted(*args: Any, **options: Any) -> object:
            try:
                return call_soon_threadsafe(*args, **options)
            finally:
                (released if submitted.is_set() else submitted).set()

        vars(loop)["call_soon_threadsafe"] = counted
        held.set()
        in_time.append(released.wait(10))
        del vars(loop)["call_soon_threadsafe"]

    def interrupt() -> None:
        assert submitted.wait(10)
        interrupt_main_thread()

    with start_session(backend=backend) as m:
        holder = threading.Thread(target=m.run_blocking, args=[hold_the_loop])
        helper = threading.Thread(target=interrupt)
        holder.start()
        helper.start()
        held.wait(10)
        with pytest.raises(KeyboardInterrupt):
            m.instruct("?")
        holder.join()
        helper.join()
        assert in_time == [True]
        assert not backend.calls
        assert str(m.instruct("?")) == "done"
    assert not threads()


def test_ctrl_c_just_before_a_call_is_handed_over_leaves_the_session_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed_over = LoopThread.submit
    interrupts = iter([True])

    def interrupted(*args: Any, **options: Any) -> object:
        if next(interrupts, False):
            raise KeyboardInterrupt
        return handed_over(*args, **options)

    backend = quick()
    with start_session(backend=backend) as m:
        monkeypatch.setattr(LoopThread, "submit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            m.instruct("?")
        assert not backend.calls
        assert str(m.instruct("?")) == "done"
    assert not threads()


def test_ctrl_c_before_the_loop_of_a_thread_runs_ends_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ending = threading.Event()
    run = anyio.run

    class Watched(LoopThread):
        def join(self, timeout: float) -> None:
            ending.set()
            super().join(timeout)

    def late(main: Any, **options: Any) -> None:
        interrupt_main_thread()
        assert ending.wait(10)
        run(main, **options)

    monkeypatch.setattr(anyio, "run", late)
    with pytest.raises(KeyboardInterrupt):
        Watched(THREAD).start()
    assert not threads()


def test_a_loop_thread_that_is_asked_and_ended_while_its_loop_is_busy_ends() -> None:
    thread = LoopThread("busy")
    thread.start()
    busy, go_on, ran = threading.Event(), threading.Event(), threading.Event()

    async def block() -> None:
        busy.set()
        go_on.wait(60)  # noqa: ASYNC251 - the loop stands still

    async def last() -> None:
        ran.set()

    thread.submit(Job(block))
    assert busy.wait(60)
    thread.submit(Job(last))
    thread.stop()  # both wake-ups wait for the loop
    go_on.set()
    thread.join(60)
    assert not thread._thread.is_alive()
    assert ran.is_set()
