"""Reasoning and calls over real sockets, in both protocols."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from mellea_sc import (
    Backend,
    Delta,
    EmptyAnswer,
    StreamInterrupted,
    UnexpectedToolCalls,
    limits,
    start_session,
)
from mellea_sc.backends import OllamaBackend, OpenAIBackend, ToolCall, ToolCallDelta
from mellea_sc.backends.http.answer import Ending
from mellea_sc.testing.server import Answer, ModelServer

pytestmark = pytest.mark.anyio


def openai(server: ModelServer) -> Backend:
    return OpenAIBackend("m", base_url=server.openai_url, api_key="secret")


def ollama(server: ModelServer) -> Backend:
    return OllamaBackend("m", base_url=server.ollama_url)


def events(*deltas: dict[str, object], end: str = "stop") -> Answer:
    """OpenAI's events, with these deltas and nothing behind the reason to stop."""
    choices: list[dict[str, object]] = [{"index": 0, "delta": delta} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": end})
    lines = [f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices]
    return Answer(body="".join(lines).encode(), content_type="text/event-stream")


@pytest.mark.parametrize("make", [openai, ollama])
async def test_reasoning_and_calls_go_over_the_wire(make: Callable[[ModelServer], Backend]) -> None:
    calls = (ToolCall("c1", "look", '{"x": 1}'), ToolCall("c2", "find", "{}"))
    answer = Answer(
        "Let me look.", reasoning=["Hm, ", "well."], tool_calls=calls, finish_reason="tool_calls"
    )
    async with ModelServer(answer) as server:
        async with start_session(backend=make(server)) as m:
            options = {"tools": [{"type": "function", "function": {"name": "look"}}]}
            thunk = await m.ainstruct("?", model_options=options, await_result=True)
        assert server.requests[0].json["tools"] == options["tools"]
    assert (thunk.value, thunk.reasoning, thunk.tool_calls) == ("Let me look.", "Hm, well.", calls)
    assert thunk.generation.finish_reason == "tool_calls"


@pytest.mark.parametrize("make", [openai, ollama])
@pytest.mark.parametrize("only", ["reasoning", "calls"])
async def test_an_answer_without_text_is_read_to_its_end_and_its_connection_is_used_again(
    make: Callable[[ModelServer], Backend], only: str
) -> None:
    calls = [ToolCall("c1", "look", "{}")]
    without = Answer([], tool_calls=calls) if only == "calls" else Answer([], reasoning="Hm.")
    async with ModelServer([without, Answer("Hello.")]) as server:
        async with start_session(backend=make(server)) as m:
            with pytest.raises(UnexpectedToolCalls if only == "calls" else EmptyAnswer):
                await m.ainstruct("?", await_result=True)
            assert await (await m.ainstruct("?")) == "Hello."
        assert [request.ended for request in server.requests] == ["complete", "complete"]
        assert [request.connection for request in server.requests] == [0, 0]


async def test_halves_of_characters_in_reasoning_are_joined() -> None:
    halves = ({"reasoning": "a\ud83d"}, {"reasoning": "\ude00b\ud83d"}, {"content": "Hi."})
    async with ModelServer(events(*halves)) as server, start_session(backend=openai(server)) as m:
        thunk = await m.ainstruct("?", await_result=True)
    assert (thunk.value, thunk.reasoning) == ("Hi.", "a\U0001f600b\ufffd")


async def test_calls_whose_stream_has_no_end_marker_are_whole_when_their_reason_came() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "look", "arguments": "{}"}}
    answer = events({"tool_calls": [call]}, end="tool_calls")
    options = {"tools": [{"type": "function", "function": {"name": "look"}}]}
    async with ModelServer(answer) as server, start_session(backend=openai(server)) as m:
        thunk = await m.ainstruct("?", model_options=options, await_result=True)
    assert thunk.tool_calls == (ToolCall("c", "look", "{}"),)


@pytest.mark.parametrize("make", [openai, ollama])
async def test_reasoning_that_is_cut_off_by_the_connection_is_no_answer(
    make: Callable[[ModelServer], Backend],
) -> None:
    answer = Answer([], reasoning=["Hm, ", "well."], cut_after=0)
    async with (
        ModelServer(answer) as server,
        start_session(backend=make(server), retries=None) as m,
    ):
        thunk = await m.ainstruct("?")
        with pytest.raises(StreamInterrupted):
            await thunk
        assert thunk.reasoning == "Hm, well."


@pytest.mark.parametrize("make", [openai, ollama])
async def test_limits_count_the_reasoning_of_a_server_that_says_no_numbers(
    make: Callable[[ModelServer], Backend],
) -> None:
    answer = Answer("4.", reasoning=[f"thought {n} " for n in range(60)])
    async with ModelServer(answer) as server, start_session(backend=make(server)) as m:
        with limits(tokens=10_000) as spent:
            assert await (await m.ainstruct("2 + 2?")) == "4."
        assert spent.completion_tokens > 60


async def test_reasoning_before_the_end_marker_is_an_answer_without_text() -> None:
    body = b'data: {"choices": [{"delta": {"reasoning": "Hm."}}]}\n\ndata: [DONE]\n\n'
    answer = Answer(body=body, content_type="text/event-stream")
    async with ModelServer(answer) as server, start_session(backend=openai(server)) as m:
        with pytest.raises(EmptyAnswer) as caught:
            await m.ainstruct("?", await_result=True)
    assert caught.value.reasoning == "Hm."


def test_an_answer_of_calls_is_whole_with_its_reason_as_one_of_text_is() -> None:
    for said in (Delta("text"), Delta(tool_calls=(ToolCallDelta("c", "look", "{}", 0),))):
        ending = Ending()
        ending.take(said)
        assert (ending.has_begun, ending.is_whole, ending.grace) == (True, False, None)
        ending.take(Delta("", "stop"))
        assert ending.is_whole
        assert ending.grace is not None
        ending.take(said)  # it goes on: the reason was none
        assert (ending.is_whole, ending.grace) == (False, None)
