"""Ctrl-C in a blocking call, at every step of what it waits for: nothing is left, lost, or goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
import pytest

from mellea_sc import (
    BackendError,
    MelleaSession,
    ModelOption,
    ModelOutputThunk,
    Requirement,
    SessionClosed,
    ValidationResult,
    check,
    simple_validate,
    start_session,
)
from mellea_sc.backends import OpenAIBackend
from mellea_sc.testing import Fail, Script, ScriptedBackend, interrupt_everywhere
from mellea_sc.testing.server import Answer, ModelServer

TEXT = "One is here. Two is here."


class Watched:
    """A program's backend, and what must hold of it when a call has been interrupted, and at the end."""

    def __init__(self) -> None:
        self.backend = ScriptedBackend()
        self.interrupted_calls = 0

    def session(self) -> MelleaSession:
        self.backend = ScriptedBackend(lambda _: TEXT.partition(". "), judge=lambda _: True)
        return start_session(backend=self.backend, context_type="chat")

    def nothing_goes_on(self) -> None:
        assert all(call.outcome != "running" for call in self.backend.calls)

    def ask(self, call: Callable[[], object]) -> None:
        """Make a blocking call; when its interrupt is raised, what it started has been cancelled."""
        try:
            call()
        except KeyboardInterrupt:
            self.interrupted_calls += 1
            self.nothing_goes_on()
            raise


def repaired(m: MelleaSession) -> object:
    wanted = [check("never", simple_validate(lambda _: False)), Requirement("be kind")]
    return m.instruct("Count.", requirements=wanted)


def in_a_block(watched: Watched) -> None:
    with watched.session() as m:
        watched.ask(lambda: repaired(m))


def on_a_bare_session(watched: Watched) -> None:
    m = watched.session()
    try:
        watched.ask(lambda: repaired(m))
    finally:
        m.close()
        with pytest.raises(SessionClosed):
            m.instruct("Count.")


def a_conversation(watched: Watched) -> None:
    with watched.session() as m:
        watched.ask(lambda: m.chat("Count."))
        watched.ask(lambda: m.instruct("Count.", model_options={ModelOption.STREAM: True}))
        watched.ask(lambda: m.validate(Requirement("be kind")))


def a_session_that_is_used_again(watched: Watched) -> KeyboardInterrupt | None:
    """An interrupted turn is in the conversation wholly or not at all, and the next one works."""
    interrupt: KeyboardInterrupt | None = None
    m = watched.session()
    try:
        watched.ask(lambda: repaired(m))
    except KeyboardInterrupt as error:
        interrupt = error
        assert len(m.ctx.as_list()) in (0, 2)
    try:
        turns = len(m.ctx.as_list())
        watched.ask(lambda: m.chat("Count."))
        assert len(m.ctx.as_list()) == turns + 2
    finally:
        m.close()
    return interrupt


PROGRAMS = [in_a_block, on_a_bare_session, a_conversation, a_session_that_is_used_again]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_interrupted_anywhere_a_blocking_program_leaves_nothing_and_loses_nothing(
    program: Callable[[Watched], object],
) -> None:
    watched = Watched()
    runs = interrupt_everywhere(lambda: program(watched), after_each=watched.nothing_goes_on)
    assert runs > watched.interrupted_calls > 10


class Forgetful(Requirement):
    """Starts a generation that fails, and does not wait for it."""

    def __init__(self, note: Callable[[ModelOutputThunk], None]) -> None:
        super().__init__("forgetful")
        self.note = note

    async def validate(self, backend, ctx, *, format=None, model_options=None):  # type: ignore[no-untyped-def]
        thunk, _ = await backend.generate_from_context("forgotten", ctx)
        self.note(thunk)
        await anyio.wait_all_tasks_blocked()
        return ValidationResult(True)


@pytest.mark.parametrize("block", [True, False], ids=["block", "bare"])
def test_interrupted_anywhere_an_error_that_nobody_observed_is_shown_once(
    block: bool, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[str] = []
    thunks: list[ModelOutputThunk] = []

    def fail_if_forgotten(request):  # type: ignore[no-untyped-def]
        forgotten = request.messages[-1].content == "forgotten"
        return Fail(BackendError("forgotten")) if forgotten else Script("done")

    def program() -> KeyboardInterrupt | None:
        interrupt: KeyboardInterrupt | None = None
        m = start_session(backend=ScriptedBackend(fail_if_forgotten))
        if block:
            m.__enter__()
        try:
            m.instruct("Count.", requirements=[Forgetful(thunks.append)])
        except KeyboardInterrupt as error:
            interrupt = error
        try:
            if not block:
                m.close()
            elif interrupt is None:
                m.__exit__(None, None, None)
            else:
                m.__exit__(type(interrupt), interrupt, interrupt.__traceback__)
        except ExceptionGroup as group:
            raised.extend(str(error) for error in group.exceptions)
        except KeyboardInterrupt as error:
            interrupt = error
            if isinstance(group := error.__context__, ExceptionGroup):  # it was being raised
                raised.extend(str(error) for error in group.exceptions)
        return interrupt

    def leaf_errors(error: BaseException) -> list[BaseException]:
        if isinstance(error, BaseExceptionGroup):
            return [leaf for inner in error.exceptions for leaf in leaf_errors(inner)]
        return [error]

    def no_error_is_lost() -> None:
        told = [entry.exc_info[1] for entry in caplog.records if entry.exc_info]
        logged = [str(leaf) for error in told if error is not None for leaf in leaf_errors(error)]
        failed = [thunk for thunk in thunks if thunk.error is not None]
        assert raised + logged == ["forgotten"] * len(failed)
        thunks.clear()
        raised.clear()
        caplog.clear()

    with caplog.at_level(logging.ERROR):
        assert interrupt_everywhere(program, after_each=no_error_is_lost) > 10


def test_interrupted_anywhere_the_server_sees_the_close() -> None:
    answer = Answer(("One is here. ", "Two is here."), delay=0.001)
    with ModelServer.in_thread(lambda _: answer) as server:
        backend = OpenAIBackend("test-model", base_url=server.openai_url)

        def program() -> None:
            with start_session(backend=backend) as m:
                m.instruct(
                    "Count.", requirements=[check("never", lambda _: ValidationResult(False))]
                )

        def every_exchange_has_ended() -> None:
            for request in server.requests:
                server.portal.start_task_soon(request.wait_closed).result(timeout=5)
            server.requests.clear()

        runs = interrupt_everywhere(program, after_each=every_exchange_has_ended, max_points=40)
        assert runs > 10
