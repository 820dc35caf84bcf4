"""The scripted backend says what it was told to say and records what became of it."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest

from mellea_sc.core.backend import Backend, ChatMessage, Delta, GenerationRequest, Usage
from mellea_sc.stdlib.requirements.judging import YES_OR_NO
from mellea_sc.testing.scripted import (
    Fail,
    Pause,
    Script,
    ScriptedAnswer,
    ScriptedBackend,
    ScriptExhausted,
    Stall,
    Step,
)

pytestmark = pytest.mark.anyio


def ask(text: str) -> GenerationRequest:
    return GenerationRequest((ChatMessage("user", text),))


async def read(backend: Backend, request: GenerationRequest) -> list[Delta]:
    async with backend.open(request) as deltas:
        return [delta async for delta in deltas]


async def text_of(backend: Backend, prompt: str = "?") -> str:
    return "".join(delta.text for delta in await read(backend, ask(prompt)))


async def test_a_text_comes_in_words_that_joined_are_the_text() -> None:
    text = "  The sea\n is wide.  "
    (*words, closing) = await read(ScriptedBackend(text), ask("a b c"))
    assert [delta.text for delta in words] == ["  The", " sea", "\n is", " wide.", "  "]
    assert closing == Delta("", "stop", Usage(3, 5))


async def test_answers_are_given_in_turn() -> None:
    backend = ScriptedBackend("one", ["t", "wo"], Script("three", finish_reason="length"))
    assert [await text_of(backend) for _ in range(3)] == ["one", "two", "three"]
    backend.assert_exhausted()


async def test_a_function_chooses_by_the_request_as_often_as_asked() -> None:
    backend = ScriptedBackend(lambda request: request.messages[-1].content.upper())
    assert [await text_of(backend, prompt) for prompt in ("a", "b")] == ["A", "B"]
    assert [call.prompt for call in backend.calls] == ["a", "b"]
    backend.assert_exhausted()


async def test_a_function_among_answers_is_refused() -> None:
    with pytest.raises(TypeError, match="one function"):
        ScriptedBackend("a", lambda request: "b")


async def test_one_request_too_many_is_an_assertion_error_that_stays() -> None:
    backend = ScriptedBackend("one")
    await text_of(backend)
    with pytest.raises(ScriptExhausted, match="request 2: 'and then"):
        await text_of(backend, "and then?")
    assert backend.calls[1].outcome == "error"
    with pytest.raises(AssertionError, match="1 requests found"):
        backend.assert_exhausted()


async def test_unused_answers_are_named() -> None:
    backend = ScriptedBackend("one", ["two"], Fail(ValueError("x")))
    await text_of(backend)
    with pytest.raises(AssertionError, match=r"2 scripted answers .*\['two'\].*ValueError"):
        backend.assert_exhausted()


async def test_judges_are_answered_by_rule_and_use_up_no_answer() -> None:
    backend = ScriptedBackend("text", judge=lambda request: "rain" in request.messages[0].content)
    yes = GenerationRequest((ChatMessage("user", "rain"),), json_schema=YES_OR_NO)
    no = GenerationRequest((ChatMessage("user", "sun"),), json_schema=YES_OR_NO)
    answers = ["".join(d.text for d in await read(backend, request)) for request in (yes, no)]
    assert ['"yes"' in answer for answer in answers] == [True, False]
    assert await text_of(backend) == "text"
    assert [call.judged for call in backend.calls] == [True, True, False]
    backend.assert_exhausted()


async def test_a_judge_can_be_known_by_a_rule_of_ones_own_and_say_anything() -> None:
    backend = ScriptedBackend(
        judge=lambda _: "perhaps", is_judge=lambda request: request.messages[0].content == "?"
    )
    assert await text_of(backend, "?") == "perhaps"
    with pytest.raises(ScriptExhausted):
        await text_of(backend, "!")


@pytest.mark.parametrize("schema", [None, {}, {"properties": []}, {"properties": {"answer": 1}}])
async def test_another_schema_is_not_a_judges(schema: dict[str, object] | None) -> None:
    backend = ScriptedBackend("text", judge=lambda _: True)
    await read(backend, GenerationRequest((), json_schema=schema))
    assert not backend.calls[0].judged
    assert backend.calls[0].prompt == ""


async def test_delays_and_pauses_take_time() -> None:
    backend = ScriptedBackend(Script(["a", Pause(0.02), "b"], delay=0.02))
    start = anyio.current_time()
    await text_of(backend)
    assert anyio.current_time() - start >= 0.06
    (call,) = backend.calls
    assert call.started_at >= start
    assert call.ended_at is not None
    assert call.ended_at - call.started_at >= 0.06


async def test_a_stall_never_ends_and_is_cancelled() -> None:
    backend = ScriptedBackend(["a", Stall(), "b"])
    got: list[str] = []
    with anyio.move_on_after(0.05):
        async with backend.open(ask("?")) as deltas:
            got.extend([delta.text async for delta in deltas])
    (call,) = backend.calls
    assert (call.outcome, call.deltas_sent) == ("cancelled", 1)


async def test_a_failure_in_the_answer_comes_where_it_is_written() -> None:
    backend = ScriptedBackend(["a", Fail(ValueError("cut"))])
    got: list[str] = []
    async with backend.open(ask("?")) as deltas:
        with pytest.raises(ValueError, match="cut"):
            async for delta in deltas:
                got.append(delta.text)  # noqa: PERF401 # what came before the error counts
    assert got == ["a"]
    assert (backend.calls[0].outcome, backend.calls[0].deltas_sent) == ("error", 1)


async def test_a_failure_as_the_answer_comes_on_entering() -> None:
    backend = ScriptedBackend(Fail(ValueError("refused")))
    with pytest.raises(ValueError, match="refused"):
        async with backend.open(ask("?")):
            pytest.fail("it was entered")
    assert backend.calls[0].outcome == "error"


async def test_a_rule_with_a_bug_is_recorded_as_an_error() -> None:
    def broken(request: GenerationRequest) -> ScriptedAnswer:
        raise LookupError(request)

    backend = ScriptedBackend(broken)
    with pytest.raises(LookupError):
        await text_of(backend)
    assert backend.calls[0].outcome == "error"


async def test_reading_to_the_end_and_leaving_early_are_told_apart() -> None:
    backend = ScriptedBackend("a b", "a b", "a b")
    await text_of(backend)
    async with backend.open(ask("?")) as deltas:
        await anext(deltas)
        assert backend.calls[-1].outcome == "running"
    with pytest.raises(KeyError):
        async with backend.open(ask("?")):
            raise KeyError
    assert [(call.outcome, call.deltas_sent) for call in backend.calls] == [
        ("ended", 2),
        ("closed", 1),
        ("closed", 0),
    ]


async def test_nothing_comes_after_the_block() -> None:
    async with ScriptedBackend("a b").open(ask("?")) as deltas:
        await anext(deltas)
    with pytest.raises(StopAsyncIteration):
        await anext(deltas)


async def test_a_delta_that_says_why_is_the_last_one() -> None:
    (only,) = await read(ScriptedBackend([Delta("a", "length", Usage(1, 2))]), ask("?"))
    assert only == Delta("a", "length", Usage(1, 2))


async def test_deltas_without_delay_switch_no_tasks() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tg:
        tg.start_soon(count)
        async with ScriptedBackend(["a"] * 1000).open(ask("?")) as deltas:
            before = turns
            async for _ in deltas:
                pass
            assert turns == before
        tg.cancel_scope.cancel()


async def test_an_iterable_is_read_as_the_consumer_goes_on() -> None:
    made = 0

    def steps() -> Iterator[Step]:
        nonlocal made
        for _ in range(1_000_000):
            made += 1
            yield "x"

    async with ScriptedBackend(steps()).open(ask("?")) as deltas:
        for _ in range(3):
            await anext(deltas)
    assert made == 3
