"""A program is run with an error at every point where one can come, and no error may get lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence

import pytest

from mellea_sc import (
    Backend,
    BackendBusy,
    BackendError,
    ChunkEvent,
    CompletedEvent,
    DependencyFailed,
    GenerationRequest,
    Instruction,
    MaxWords,
    ModelOption,
    PartialValidationResult,
    Requirement,
    SimpleContext,
    ValidationResult,
    check,
    req,
    simple_validate,
    start_session,
    stream_with_chunking,
    wait_for_all_mots,
)
from mellea_sc.backends import ChatMessage
from mellea_sc.core.base import Context
from mellea_sc.stdlib import ErrorEvent
from mellea_sc.testing import (
    FailingBackend,
    FailingRequirement,
    InjectedError,
    Leaked,
    LoopName,
    Pause,
    ScriptedBackend,
    fail_everywhere,
    run_virtual,
)

pytestmark = pytest.mark.anyio

ASKED = GenerationRequest((ChatMessage("user", "Hello."),))
TEXT = "One two. Three four. Five six."


def scripted() -> Backend:
    return ScriptedBackend(lambda _: TEXT)


def one_delta() -> Backend:
    return ScriptedBackend(lambda _: ["one"])


async def read(backend: Backend) -> list[str]:
    async with backend.open(ASKED) as deltas:
        return [delta.text async for delta in deltas]


# --- the wrappers -----------------------------------------------------------------------------


@pytest.mark.parametrize("at", [None, 1, 2, 3, 4, 5, 6, 7])
async def test_a_backend_fails_at_its_opening_before_each_delta_and_at_its_end(
    at: int | None,
) -> None:
    backend = FailingBackend(ScriptedBackend("a b c"), at=at)  # and a closing delta
    texts: list[str] = []
    failed = False
    try:
        async with backend.open(ASKED) as deltas:
            async for delta in deltas:
                texts.append(delta.text)  # noqa: PERF401 # what came before the error counts
    except InjectedError:
        failed = True
    assert failed == (at is not None and at <= 6)
    assert texts == ["a", " b", " c", ""][: 4 if at is None else max(0, at - 2)]
    assert (backend.failed_at is not None) == failed


async def test_the_points_of_all_requests_are_counted_together() -> None:
    failing = FailingBackend(ScriptedBackend("a", "b"), at=5)
    async with failing.connected() as one, failing.connected() as other:
        await read(one)
        with pytest.raises(InjectedError):
            await read(other)
    assert failing.points == 5
    assert failing.failed_at == "opening a request"


async def test_a_requirement_fails_in_one_call_of_all_its_copies() -> None:
    error = LookupError("chosen")
    failing = FailingRequirement(MaxWords(3), at=3, error=error)
    ctx = SimpleContext()
    async with start_session(backend=scripted()) as m:
        for copy in (failing.__copy__(), failing.__copy__()):
            await copy.stream_validate("one", backend=m.backend, ctx=ctx)
        with pytest.raises(LookupError) as caught:
            await failing.validate(m.backend, ctx)
    assert caught.value is error
    assert failing.failed_at == "in validate of <MaxWords 'at most 3 words'>"


async def test_a_wrapped_requirement_says_what_follows_its_fail_as_it_does_alone() -> None:
    wrapped = FailingRequirement(
        Requirement("short", on_fail="filter", blocking=False, window=3, every=2)
    )
    said = (wrapped.on_fail, wrapped.blocking, wrapped.window, wrapped.every)
    assert said == ("filter", False, 3, 2)


async def test_a_wrapped_requirement_judges_and_reads_as_it_does_alone() -> None:
    requirement = MaxWords(3)
    wrapped = FailingRequirement(requirement)
    assert wrapped.format_for_llm() == requirement.format_for_llm()
    assert wrapped.chunking == requirement.chunking
    async with (
        start_session(backend=scripted()) as m,
        m.stream("Count.", requirements=[wrapped]) as result,
    ):
        assert [chunk async for chunk in result.astream()] == ["One two."]
    assert not result.completed
    assert requirement._scanner._count == 0


# --- programs that keep every error -------------------------------------------------------------


async def test_every_point_of_a_backend_gets_the_error_once() -> None:
    reached: list[str] = []

    async def program(backend: Backend, _: Sequence[Requirement]) -> None:
        await read(backend)

    async def after_each(error: Exception | None) -> None:
        reached.append(type(error).__name__)

    runs = await fail_everywhere(program, backend=one_delta, after_each=after_each)
    assert runs == 4  # the opening, the delta, the closing delta, the end
    assert Counter(reached) == {"NoneType": 1, "InjectedError": 4}


async def test_every_call_of_a_validator_gets_the_error_once() -> None:
    judged: list[str] = []

    class Recorder(Requirement):
        async def stream_validate(
            self, chunk: str, *, backend: Backend, ctx: Context
        ) -> PartialValidationResult:
            judged.append(chunk)
            return PartialValidationResult("unknown")

        async def validate(self, backend: Backend, ctx: Context, **_: object) -> ValidationResult:
            judged.append("all")
            return ValidationResult(True)

    async def program(backend: Backend, requirements: Sequence[Requirement]) -> None:
        for requirement in requirements:
            await requirement.stream_validate("a", backend=backend, ctx=SimpleContext())
            await requirement.validate(backend, SimpleContext())

    runs = await fail_everywhere(program, backend=scripted, requirements=[Recorder(), Recorder()])
    assert runs == 4
    assert Counter(judged) == {"a": 2 + (0 + 1 + 1 + 2), "all": 2 + (0 + 0 + 1 + 1)}


async def test_a_stream_with_three_requirements_loses_nothing() -> None:
    events: list[type] = []

    async def program(backend: Backend, requirements: Sequence[Requirement]) -> None:
        events.clear()
        async with (
            start_session(backend=backend) as m,
            m.stream("Count.", requirements=requirements) as result,
        ):
            events.extend([type(event) async for event in result.events()])

    async def ended_once(error: Exception | None) -> None:
        assert events.count(CompletedEvent) == 1
        assert events[-1] is CompletedEvent
        assert (ErrorEvent in events) == (error is not None)

    runs = await fail_everywhere(
        program,
        backend=lambda: ScriptedBackend(lambda _: TEXT, judge=lambda _: True),
        requirements=[MaxWords(20), req("be polite"), Requirement("short", check_only=True)],
        after_each=ended_once,
    )
    assert runs > 20


async def test_nothing_unchecked_is_released_before_the_error() -> None:
    released: list[str] = []

    async def program(backend: Backend, requirements: Sequence[Requirement]) -> None:
        released.clear()
        async with (
            start_session(backend=backend) as m,
            stream_with_chunking(
                Instruction("Count."), m.backend, m.ctx, requirements=requirements
            ) as result,
        ):
            released.extend(
                [event.text async for event in result.events() if isinstance(event, ChunkEvent)]
            )

    async def prefix(_: Exception | None) -> None:
        assert TEXT.startswith(" ".join(released))

    await fail_everywhere(program, backend=scripted, requirements=[MaxWords(20)], after_each=prefix)


async def test_several_thunks_may_raise_it_in_a_group_or_as_a_cause() -> None:
    async def program(backend: Backend, _: Sequence[Requirement]) -> None:
        async with start_session(backend=backend) as m:
            first = await m.ainstruct("Count.", model_options={ModelOption.STREAM: True})
            second = await m.ainstruct("Go on: {{ first }}", user_variables={"first": first})
            await wait_for_all_mots([second])

    assert await fail_everywhere(program, backend=one_delta) == 8


async def test_a_program_that_has_dealt_with_the_error_returns_it() -> None:
    async def program(backend: Backend, _: Sequence[Requirement]) -> Exception | None:
        async with start_session(backend=backend) as m:
            try:
                await m.ainstruct("Count.", await_result=True)
            except BackendError as error:
                return error
        return None

    assert await fail_everywhere(program, backend=one_delta) == 4


async def test_the_error_can_be_chosen() -> None:
    async def program(backend: Backend, _: Sequence[Requirement]) -> Exception | None:
        try:
            await read(backend)
        except BackendBusy as busy:
            return ExceptionGroup("busy", [busy])
        return None

    await fail_everywhere(program, backend=one_delta, error=lambda: BackendBusy("", status=503))


async def test_the_error_of_a_requirement_that_fails_open_may_be_lost() -> None:
    async def program(backend: Backend, requirements: Sequence[Requirement]) -> Exception | None:
        try:
            async with (
                start_session(backend=backend) as m,
                m.stream("Count.", requirements=requirements) as result,
            ):
                await result.acomplete()
        except BackendError as error:
            return error
        return None

    judged = Requirement("short", simple_validate(lambda _: True), fail_open=True)
    await fail_everywhere(program, backend=one_delta, requirements=[judged])


# --- programs that do not -------------------------------------------------------------------------


async def test_a_program_that_swallows_the_error_is_reported_with_the_point() -> None:
    async def program(backend: Backend, requirements: Sequence[Requirement]) -> None:
        async with backend.open(ASKED) as deltas:
            try:
                async for _ in deltas:
                    pass
            except BackendError:
                pass

    with pytest.raises(AssertionError, match="an error was lost") as caught:
        await fail_everywhere(program, backend=one_delta)
    assert "before delta 1" in caught.value.__notes__[-1]


async def test_a_validator_that_is_not_listened_to_is_reported() -> None:
    async def program(backend: Backend, requirements: Sequence[Requirement]) -> object:
        async with start_session(backend=backend) as m:
            result = await m.stream("Count.", requirements=requirements)
            try:
                await result.acomplete()
            except InjectedError as error:
                return error if not result.full_text else result.full_text
        return None

    with pytest.raises(AssertionError, match="an error was lost") as caught:
        await fail_everywhere(
            program, backend=scripted, requirements=[check("short", simple_validate(bool))]
        )
    assert "was put in" in caught.value.__notes__[-1]


async def test_an_error_in_the_handling_of_the_error_is_not_taken_for_it() -> None:
    async def program(backend: Backend, _: Sequence[Requirement]) -> None:
        try:
            await read(backend)
        except BackendError:
            raise KeyError("in the handler")  # noqa: B904 # as a mistake would

    with pytest.raises(KeyError, match="in the handler") as caught:
        await fail_everywhere(program, backend=one_delta)
    assert "was put in opening" in caught.value.__notes__[-1]


async def test_another_error_beside_it_is_raised() -> None:
    async def program(backend: Backend, _: Sequence[Requirement]) -> None:
        try:
            await read(backend)
        except BackendError as error:
            raise ExceptionGroup("both", [error, AssertionError("an invariant")]) from None

    with pytest.raises(ExceptionGroup) as caught:
        await fail_everywhere(program, backend=one_delta)
    assert caught.group_contains(AssertionError, match="an invariant")


async def test_an_error_without_any_injection_is_raised_as_itself() -> None:
    async def program(backend: Backend, _: Sequence[Requirement]) -> None:
        raise LookupError("at once")

    with pytest.raises(LookupError, match="at once") as caught:
        await fail_everywhere(program, backend=one_delta)
    assert not hasattr(caught.value, "__notes__")


async def test_a_cause_is_enough_and_a_context_is_not() -> None:
    async def program(backend: Backend, _: Sequence[Requirement]) -> None:
        try:
            await read(backend)
        except BackendError as error:
            raise DependencyFailed("for that") from error

    assert await fail_everywhere(program, backend=one_delta) == 4


async def test_what_a_failing_run_leaves_behind_is_found_with_its_point() -> None:
    left: list[AsyncGenerator[int]] = []

    async def numbers() -> AsyncGenerator[int]:
        yield 1

    async def program(backend: Backend, _: Sequence[Requirement]) -> None:
        generator = numbers()
        left.append(generator)
        await anext(generator)
        await read(backend)
        await generator.aclose()

    with pytest.raises(Leaked, match="async generator") as caught:
        await fail_everywhere(program, backend=one_delta)
    assert "was put in opening a request" in caught.value.__notes__[-1]
    for generator in left:
        await generator.aclose()


async def test_the_invariant_is_checked_after_each_run() -> None:
    async def program(backend: Backend, _: Sequence[Requirement]) -> None:
        await read(backend)

    async def holds(error: Exception | None) -> None:
        assert error is None, "the invariant"

    with pytest.raises(AssertionError, match="the invariant") as caught:
        await fail_everywhere(program, backend=one_delta, after_each=holds)
    assert "was put in opening a request" in caught.value.__notes__[-1]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_it_works_in_virtual_time(loop: LoopName) -> None:
    async def program(backend: Backend, _: Sequence[Requirement]) -> None:
        await read(backend)

    async def check() -> int:
        return await fail_everywhere(
            program, backend=lambda: ScriptedBackend(["one", Pause(3600), "two"])
        )

    assert run_virtual(check, backend=loop) == 5
