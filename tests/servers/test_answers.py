"""What servers answer: text, its end and its usage, stop words, seeds, schemas, continuations, eight at once."""

from __future__ import annotations

import json
import re
from contextlib import suppress

import pytest
from asking import FOREVER, asked, endless, session
from running import Running, backend_for

from mellea_sc import BacktrackStrategy, GenerationRequest, MelleaError, ModelOption, MustNotMatch
from mellea_sc.backends import ChatMessage, OpenAIBackend
from mellea_sc.testing import check_backend

pytestmark = pytest.mark.anyio

COUNT = "Count from one to ten, in words."


async def test_an_answer_streams_and_tells_its_end_and_its_usage(server: Running) -> None:
    async with session(server) as m:
        thunk = await m.ainstruct(COUNT, model_options={ModelOption.STREAM: True, **asked(12)})
        deltas = [delta async for delta in thunk]
        assert len(deltas) > 3
        assert "".join(deltas) == thunk.value
        assert thunk.generation.finish_reason == "length"
        usage = thunk.generation.usage
        assert usage is not None
        assert usage.completion_tokens == 12
        assert usage.prompt_tokens > 8


async def test_a_backend_of_ours_keeps_its_promises(server: Running) -> None:
    request = GenerationRequest(
        (ChatMessage("user", COUNT),), {**server.server.options, **asked(6)}
    )
    await check_backend(lambda: backend_for(server), request=request, max_points=6)


async def test_what_stands_before_a_stop_word_is_the_answer(server: Running) -> None:
    if not server.can("stop"):
        pytest.skip(f"{server.server.name} sends the stop word too")
    async with session(server) as m:
        whole = str(await (await m.ainstruct(COUNT, model_options=asked(24))).avalue())
        words = whole.split()
        stop = words[len(words) // 2]
        options = {**asked(24), ModelOption.STOP_SEQUENCES: [stop]}
        thunk = await m.ainstruct(COUNT, model_options=options)
        assert await thunk.avalue() == whole[: whole.index(stop)]
        assert thunk.generation.finish_reason == "stop"


async def test_a_seed_gives_the_same_answer_again(server: Running) -> None:
    async with session(server) as m:
        answers = []
        for seed in (7, 7, 8):
            options = {**asked(16), ModelOption.TEMPERATURE: 1.5, ModelOption.SEED: seed}
            answers.append(await (await m.ainstruct(COUNT, model_options=options)).avalue())
    assert answers[0] == answers[1] != answers[2]


SEVEN = {"type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"]}


async def test_an_answer_in_a_format_fits_it(server: Running) -> None:
    if not server.can("schema"):
        pytest.skip(f"{server.server.name} takes no notice of it")
    async with session(server) as m:
        thunk = await m.ainstruct("Any number?", format=SEVEN, model_options=asked(40))
        assert json.loads(await thunk.avalue()) == {"n": 7}


async def test_an_answer_that_does_not_fit_its_format_is_told(server: Running) -> None:
    async with session(server) as m:
        for too_few in (2, 4):
            thunk = await m.ainstruct("Any number?", format=SEVEN, model_options=asked(too_few))
            with suppress(MelleaError):
                await thunk.avalue()
            assert thunk.error or thunk.format_error


async def test_eight_at_once_have_their_own_answers(server: Running) -> None:
    count = 2 * server.server.slots if server.can("schema") else 8
    async with session(server) as m:
        thunks = []
        for n in range(count):
            own = {"type": "object", "properties": {"n": {"const": n}}, "required": ["n"]}
            format = own if server.can("schema") else None
            thunks.append(await m.ainstruct(f"Say {n}.", format=format, model_options=asked(24)))
        answers = [await thunk.avalue() for thunk in thunks]
    if server.can("schema"):
        assert [json.loads(answer)["n"] for answer in answers] == list(range(count))
    assert all(answers)


async def test_a_model_that_continues_writes_on(server: Running, backend: OpenAIBackend) -> None:
    begun = "One, two, three,"
    messages = (ChatMessage("user", COUNT), ChatMessage("assistant", begun))
    request = GenerationRequest(messages, {**server.server.options, **asked(8)})
    async with backend.open(request) as deltas:
        text = "".join([delta.text async for delta in deltas])
    if server.can("continue"):
        assert text.startswith(" four")
    assert text.strip()


async def test_backtracking_joins_what_it_keeps_and_what_follows(server: Running) -> None:
    async with session(server) as m:
        async with m.stream(
            "Describe in five sentences how a volcano erupts.",
            requirements=[MustNotMatch(r"(?i)\bgas\b")],
            strategy=BacktrackStrategy(budget=3),
            model_options=asked(90),
        ) as result:
            shown = "".join([text async for text in result.atext()])
        assert shown == result.full_text
        assert "gas" not in shown.lower().split()
        assert not re.search(r"[.!?][A-Z]", shown)


async def test_a_long_answer_comes_whole(server: Running) -> None:
    tokens = 60
    async with session(server) as m:
        thunk = await m.ainstruct(FOREVER, model_options=endless(server, tokens))
        await thunk.avalue()
        assert thunk.generation.usage is not None
        assert thunk.generation.usage.completion_tokens == tokens
