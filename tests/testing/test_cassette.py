"""A real backend's answers are recorded to a readable file, without secrets, and replayed as they were."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc import (
    Backend,
    BackendBusy,
    BackendError,
    BackendRejected,
    CBlock,
    Delta,
    GenerationRequest,
    MaxWords,
    ModelOption,
    NotAuthorized,
    StreamInterrupted,
    start_session,
)
from mellea_sc.backends import ChatMessage, OllamaBackend, ToolCallDelta, Usage
from mellea_sc.testing import (
    Cassette,
    CassetteMismatch,
    Fail,
    LoopName,
    Pause,
    Recording,
    Script,
    ScriptedBackend,
    Step,
    check_backend,
    run_virtual,
)
from mellea_sc.testing._cassette.file import Exchange, TimedDelta
from mellea_sc.testing._cassette.scrub import scrubbed
from mellea_sc.testing.server import Answer, ModelServer

pytestmark = pytest.mark.anyio

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


def asking(text: str, **options: object) -> GenerationRequest:
    return GenerationRequest((ChatMessage("user", text),), options)


async def read(backend: Backend, request: GenerationRequest) -> list[Delta]:
    async with backend.connected() as connected, connected.open(request) as deltas:
        return [delta async for delta in deltas]


def content_of(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


# --- what is recorded ------------------------------------------------------------------------------


@LOOPS
def test_an_exchange_is_recorded_whole_with_its_times(loop: LoopName, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "one.json"
    schema = {"type": "object", "properties": {"api_key": {"type": "string"}}}
    request = GenerationRequest(
        (ChatMessage("system", "Be brief.\nBe kind."), ChatMessage("user", "Grüße?")),
        {ModelOption.MAX_NEW_TOKENS: 9, ModelOption.STREAM: True, "stop": ("a", "b")},
        schema,
    )
    answer = Script([Pause(0.5), "Grüße", Pause(0.25), "!\n"], usage=Usage(7, 2))
    run_virtual(read, Recording(ScriptedBackend(answer), path), request, backend=loop)
    assert content_of(path) == {
        "version": 1,
        "provider": "scripted",
        "model": "scripted",
        "prefills": True,
        "judges": True,
        "exchanges": [
            {
                "request": {
                    "messages": [
                        {"role": "system", "content": ["Be brief.", "Be kind."]},
                        {"role": "user", "content": "Grüße?"},
                    ],
                    "options": {"@@@max_new_tokens@@@": 9, "stop": ["a", "b"]},
                    "schema": schema,
                },
                "opened": 0.0,
                "deltas": [
                    {"at": 0.5, "text": "Grüße"},
                    {"at": 0.75, "text": "!\n"},
                    {
                        "at": 0.75,
                        "text": "",
                        "finish_reason": "stop",
                        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
                    },
                ],
                "ended": {"at": 0.75},
            }
        ],
    }


async def test_the_file_is_made_for_people_and_for_diffs(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    prompt = "Which of these is the longest of all the words that stand here?\nOr in this line?"
    await read(Recording(ScriptedBackend(["für ", "dich"] * 3), path), asking(prompt))
    text = re.sub(r"0\.0\d+", "0.0", path.read_text(encoding="utf-8"))
    assert (
        """
            "content": [
              "Which of these is the longest of all the words that stand here?",
              "Or in this line?"
            ]
"""
        in text
    )
    assert text.count('\n        {"at": 0.0, "text": "für "},\n') == 3
    assert max(map(len, text.splitlines())) <= 100


async def test_errors_are_recorded_where_they_were(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    busy = BackendBusy("later", status=503, body="busy", retry_after=2.5)
    backend = ScriptedBackend(Fail(busy), ["one ", Fail(StreamInterrupted("cut"))])
    recording = Recording(backend, path)
    for kind in (BackendBusy, StreamInterrupted):
        with pytest.raises(kind):
            await read(recording, asking("Hello."))
    for error in (LookupError("a backend's own"), NotAuthorized("no", status=401, body="")):
        with pytest.raises(type(error)):
            await read(Recording(ScriptedBackend(Fail(error)), tmp_path / f"{error}"), asking("?"))

    cassette = Cassette(path)
    with pytest.raises(BackendBusy, match="later") as caught:
        await read(cassette, asking("Hello."))
    assert (caught.value.status, caught.value.body, caught.value.retry_after) == (503, "busy", 2.5)
    texts: list[str] = []
    async with cassette.open(asking("Hello.")) as deltas:
        with pytest.raises(StreamInterrupted, match="cut"):
            async for delta in deltas:
                texts.append(delta.text)  # noqa: PERF401 # what came before the error counts
    assert texts == ["one "]
    with pytest.raises(BackendError, match="LookupError: a backend's own"):
        await read(Cassette(tmp_path / "a backend's own"), asking("?"))
    with pytest.raises(NotAuthorized) as refused:
        await read(Cassette(tmp_path / "no"), asking("?"))
    assert refused.value.status == 401


async def test_what_is_tried_again_is_tried_again_when_it_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    passing, final = BackendRejected("it broke", status=500), BackendBusy("for good", status=503)
    passing.retryable, passing.retry_after = True, 0.01
    final.retryable = False
    backend = ScriptedBackend(Fail(passing), "fine", Fail(final))
    for asked in (backend, None):
        inner = Recording(asked, path) if asked is not None else Cassette(path)
        async with start_session(backend=inner) as m:
            assert (await m.ainstruct("a", await_result=True)).value == "fine"
            with pytest.raises(BackendBusy, match="for good"):
                await m.ainstruct("b", await_result=True)
    assert len(backend.calls) == 3


async def test_a_recording_is_a_good_backend(tmp_path: Path) -> None:
    def make() -> Backend:
        backend = ScriptedBackend(lambda _: Script(["one ", Pause(0), "two"]))
        return Recording(backend, tmp_path / "one.json")

    await check_backend(make)


async def test_a_recording_over_the_network_is_replayed_the_same(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    async with ModelServer(Answer(["one ", "two"], usage=Usage(3, 2), delay=0.01)) as server:
        real = OllamaBackend("test-model", base_url=server.ollama_url)
        recorded = await read(Recording(real, path), asking("Count."))
    cassette = Cassette(path)
    assert (cassette.provider, cassette.model_id) == ("ollama", "test-model")
    assert await read(cassette, asking("Count.")) == recorded
    assert server.url not in path.read_text(encoding="utf-8")


# --- secrets -------------------------------------------------------------------------------------------


async def test_options_that_look_like_secrets_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    secret = "hunter2"
    options = {
        "api_key": secret,
        "apiKey": secret,
        "access_token": [secret],
        "Authorization": f"Bearer {secret}",
        "extra_headers": {"X-Api-Key": secret, "accept": "text/plain"},
        "client_secret": {"value": secret},
        "max_tokens": 100,
        "keep_alive": "5m",
        "unset_key": None,
    }
    await read(Recording(ScriptedBackend("one"), path), asking("Hello.", **options))
    assert secret not in path.read_text(encoding="utf-8")
    assert "text/plain" in path.read_text(encoding="utf-8")
    assert '"max_tokens": 100' in path.read_text(encoding="utf-8")
    assert '"keep_alive": "5m"' in path.read_text(encoding="utf-8")
    assert await read(Cassette(path), asking("Hello.", **{**options, "api_key": "another one"}))


def without_name(text: str) -> str:
    return re.sub(r"Ada( Lovelace)?", "(name)", text)


async def test_what_the_user_calls_a_secret_is_in_no_text(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    recording = Recording(
        ScriptedBackend(
            ["Dear A", "da Love", "lace, ", "your name is ", "Ada", ". Bye"],
            Fail(BackendBusy("no place for Ada", status=429, body="Ada?")),
        ),
        path,
        scrub=without_name,
    )
    asked = asking("I am Ada.", user="Ada")
    await read(recording, asked)
    with pytest.raises(BackendBusy):
        await read(recording, asked)
    written = path.read_text(encoding="utf-8")
    assert "Ada" not in written
    assert "Lovelace" not in written
    cassette = Cassette(path, scrub=without_name)
    replayed = [delta.text for delta in await read(cassette, asked)]
    assert "".join(replayed) == "Dear (name), your name is (name). Bye"
    assert len(replayed) == 7


@given(st.lists(st.text("ab€", max_size=4), max_size=8), st.sampled_from(["", "x", "ab", "bbbbbb"]))
def test_deltas_of_a_scrubbed_text_are_the_scrubbed_text(deltas: list[str], new: str) -> None:
    timed = [TimedDelta(float(at), Delta(text)) for at, text in enumerate(deltas)]

    def scrub(text: str) -> str:
        return text.replace("ab", new)

    result = scrubbed(Exchange({}, deltas=timed), scrub).deltas
    assert "".join(one.delta.text for one in result) == scrub("".join(deltas))
    assert [one.at for one in result] == [one.at for one in timed]
    if "ab" not in "".join(deltas):
        assert result == timed


# --- what is replayed ------------------------------------------------------------------------------------


async def record(path: Path, *pairs: tuple[str, str]) -> None:
    recording = Recording(ScriptedBackend(*(answer for _, answer in pairs)), path)
    for prompt, _ in pairs:
        await read(recording, asking(prompt))


async def test_a_whole_session_is_replayed_by_content_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "one.json"

    async def ask(backend: Backend, prompts: Sequence[str]) -> dict[str, str]:
        async with start_session(backend=backend) as m:
            thunks = {prompt: await m.ainstruct(prompt) for prompt in prompts}
            async with m.stream("Write.", requirements=[MaxWords(50)]) as result:
                text = "".join([chunk async for chunk in result.astream()])
            texts = {prompt: await thunk for prompt, thunk in thunks.items()}
        return {"Write.": text, **texts}

    def echo(request: GenerationRequest) -> str:
        return f"{request.messages[-1].content}!"

    recorded = await ask(Recording(ScriptedBackend(echo), path), ["one", "two", "three"])
    cassette = Cassette(path)
    assert await ask(cassette, ["three", "one", "two"]) == recorded
    cassette.assert_exhausted()


async def test_equal_requests_get_their_answers_in_the_recorded_order_once(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    await record(path, ("Go on.", "first"), ("Else.", "other"), ("Go on.", "second"))
    cassette = Cassette(path)
    for expected in ("first", "second"):
        assert (await read(cassette, asking("Go on.")))[0].text == expected
    with pytest.raises(CassetteMismatch, match=r"has this request 2 times.*repeat=True"):
        await read(cassette, asking("Go on."))
    with pytest.raises(AssertionError, match="nobody asked for exchange 2"):
        cassette.assert_exhausted()


async def test_with_repeat_answers_are_used_again_from_the_first(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    await record(path, ("Go on.", "first"), ("Go on.", "second"))
    cassette = Cassette(path, repeat=True)
    texts = [(await read(cassette, asking("Go on.")))[0].text for _ in range(5)]
    assert texts == ["first", "second", "first", "second", "first"]


@LOOPS
@pytest.mark.parametrize("delays", [True, False])
def test_with_delays_deltas_come_when_they_came(
    loop: LoopName, delays: bool, tmp_path: Path
) -> None:
    path = tmp_path / "one.json"

    async def times(backend: Backend) -> list[float]:
        started = anyio.current_time()
        async with backend.open(asking("Count.")) as deltas:
            return [round(anyio.current_time() - started, 3) async for _ in deltas]

    script: list[Step] = ["one", Pause(60), "two", Pause(3600), "three"]
    recorded = run_virtual(times, Recording(ScriptedBackend(script), path), backend=loop)
    assert recorded == [0, 60, 3660, 3660]
    replayed = run_virtual(times, Cassette(path, delays=delays), backend=loop)
    assert replayed == (recorded if delays else [0, 0, 0, 0])


async def test_a_mismatch_is_a_diff_with_the_nearest_request(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    await record(path, ("Something else altogether.", "?"), ("Write a haiku.\nAbout spring.", "!"))
    with pytest.raises(CassetteMismatch) as caught:
        await read(Cassette(path), asking("Write a haiku.\nAbout autumn.", temperature=0.5))
    message = str(caught.value)
    assert "the nearest is exchange 2" in message
    lines = [line.replace(" ", "") for line in message.splitlines()]
    assert '-"Aboutspring."' in lines
    assert '+"Aboutautumn."' in lines
    assert '+"temperature":0.5' in lines
    assert '"Writeahaiku.",' in lines


async def test_what_the_model_does_not_see_is_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    await record(path, ("Count.", "one"))
    options = {ModelOption.STREAM: True, ModelOption.STREAM_TIMEOUT: 3}
    assert await read(Cassette(path), asking("Count.", **options))


async def test_a_consumer_that_reads_on_where_the_recorded_one_left_is_told(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    async with Recording(ScriptedBackend("one two three"), path).open(asking("Count.")) as deltas:
        await anext(deltas)
    cassette = Cassette(path, repeat=True)
    async with cassette.open(asking("Count.")) as deltas:
        assert (await anext(deltas)).text == "one"
    async with cassette.open(asking("Count.")) as deltas:
        await anext(deltas)
        with pytest.raises(CassetteMismatch, match="its consumer left here"):
            await anext(deltas)


async def test_half_a_surrogate_pair_survives(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    recorded = await read(Recording(ScriptedBackend(["\ud83d"]), path), asking("\udc80"))
    assert await read(Cassette(path), asking("\udc80")) == recorded


@pytest.mark.parametrize(
    ("content", "what"),
    [("", "no JSON object"), ("[]", "no JSON object"), ('{"version": 2}', "version 2")],
)
async def test_a_file_that_is_no_cassette_is_refused(
    content: str, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "one.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=what):
        Cassette(path)


async def test_an_empty_cassette_says_what_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text('{"version": 1}')
    with pytest.raises(CassetteMismatch, match=r"(?s)no exchanges.*Count"):
        await read(Cassette(path), asking("Count."))


async def test_a_cassette_says_of_itself_what_the_recorded_backend_did(tmp_path: Path) -> None:
    path = tmp_path / "one.json"

    class Odd(ScriptedBackend):
        provider = "odd"
        model_id = "one"
        prefills = False
        judges = False

    for backend in (Odd("yes"), ScriptedBackend("yes")):
        await read(Recording(backend, path), asking("go"))
        cassette = Cassette(path)
        for name in Backend.__annotations__:
            assert getattr(cassette, name) == getattr(backend, name), name


async def test_an_older_file_says_what_its_program_was_told(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    await read(Recording(ScriptedBackend("yes"), path), asking("go"))
    document = json.loads(path.read_text())
    del document["prefills"], document["judges"]
    path.write_text(json.dumps(document))
    assert not Cassette(path).prefills
    assert Cassette(path).judges


PARTS = (
    Delta(reasoning="Ann asks. "),
    Delta(reasoning="Let An", usage=Usage(5, 0, 4)),
    Delta("Hello, A", reasoning="n wait."),
    Delta("nn."),
    Delta(tool_calls=(ToolCallDelta("c1", "look", '{"who": "A', 0), ToolCallDelta("c2", "f"))),
    Delta(tool_calls=(ToolCallDelta("", "", 'nn"}', 0),)),
    Delta("", "tool_calls", Usage(5, 9, 4, 3)),
)


async def test_all_parts_of_a_delta_are_recorded_and_replayed(tmp_path: Path) -> None:
    path = tmp_path / "parts.json"
    recorded = await read(Recording(ScriptedBackend(PARTS), path), asking("?"))
    assert recorded == list(PARTS)
    assert await read(Cassette(path), asking("?")) == recorded


async def test_a_secret_is_taken_out_of_reasoning_and_calls_too(tmp_path: Path) -> None:
    path = tmp_path / "parts.json"

    def scrub(text: str) -> str:
        return text.replace("Ann", "(who)")

    await read(Recording(ScriptedBackend(PARTS), path, scrub=scrub), asking("?"))
    assert "Ann" not in path.read_text()
    deltas = await read(Cassette(path, scrub=scrub), asking("?"))
    assert "".join(delta.text for delta in deltas) == "Hello, (who)."
    assert "".join(delta.reasoning for delta in deltas) == "(who) asks. Let (who) wait."
    arguments = [piece.arguments for delta in deltas for piece in delta.tool_calls]
    assert "".join(arguments) == '{"who": "(who)"}'


async def test_a_file_of_before_deltas_had_parts_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    request = {"messages": [{"role": "user", "content": "?"}]}
    end = {"at": 1, "text": "", "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    old = {
        "version": 1,
        "provider": "ollama",
        "model": "m",
        "exchanges": [
            {
                "request": request,
                "opened": 0.1,
                "deltas": [{"at": 0.5, "text": "a"}, {**end, "usage": usage}],
                "ended": {"at": 1},
            }
        ],
    }
    path.write_text(json.dumps(old))
    assert await read(Cassette(path), asking("?")) == [Delta("a"), Delta("", "stop", Usage(3, 2))]


async def test_what_splits_reasoning_from_text_is_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "think.json"
    tags = {ModelOption.THINK_TAGS: True}
    await read(Recording(ScriptedBackend("<think>Hm.</think>Hi."), path), asking("?"))
    async with start_session(backend=Cassette(path), model_options=tags) as m:
        thunk = await m.aact(CBlock("?"), await_result=True)
    assert (thunk.value, thunk.reasoning) == ("Hi.", "Hm.")
