"""Results tell their story: what ended which attempt, when, and the tokens it cost or saved."""

from __future__ import annotations

import json

import anyio
import pytest
from kit import Check, ask

from mellea_sc import (
    Backend,
    BacktrackStrategy,
    Context,
    ModelError,
    ModelOption,
    MustNotMatch,
    PreconditionFailed,
    RejectionSamplingStrategy,
    check,
    simple_validate,
    start_session,
)
from mellea_sc.core import TokenCount, Trace
from mellea_sc.stdlib import RacingStrategy
from mellea_sc.testing import ScriptedBackend
from mellea_sc.testing.scripted import Fail, Pause, Script

pytestmark = pytest.mark.anyio

BAD = Script("One. Two. Bad three. Four.", delay=1)
GOOD = Script("Uno. Due. Tre.", delay=1)
LIMIT = {ModelOption.MAX_NEW_TOKENS: 10}


def never_bad(on_fail: object = None) -> MustNotMatch:
    # as it is: else an accent on the "d" would be waited for, which is a token more
    return MustNotMatch("Bad", "nothing bad", normalize=None, on_fail=on_fail)  # type: ignore[arg-type]


async def test_a_failed_attempt_says_who_failed_it_where_when_and_what_that_saved() -> None:
    async with (
        start_session(backend=ScriptedBackend(BAD), model_options=LIMIT) as m,
        m.stream("?", requirements=[never_bad()]) as result,
    ):
        await result.acomplete()
    story = result.trace
    assert (story.outcome, story.cause) == ("rejected", None)
    (attempt,) = story.children
    assert (attempt.what, attempt.outcome, attempt.began, attempt.ended) == (
        *("attempt 1", "failed"),
        *(0, 3),
    )
    assert attempt.cause is not None
    assert (attempt.cause.kind, attempt.cause.who) == ("requirement", "'nothing bad'")
    assert (attempt.cause.chunk_index, attempt.cause.at) == (2, 3)
    assert (attempt.tokens.generated, attempt.tokens.wasted) == (3, 3)
    assert (attempt.tokens.released, attempt.tokens.limit, attempt.tokens.saved) == (2, 10, 7)
    assert attempt.tokens.estimated
    assert story.tokens.saved == 7


async def test_a_natural_end_saves_and_wastes_nothing() -> None:
    async with (
        start_session(backend=ScriptedBackend(GOOD), model_options=LIMIT) as m,
        m.stream("?", requirements=[never_bad()]) as result,
    ):
        await result.acomplete()
    (attempt,) = result.trace.children
    assert (result.trace.outcome, attempt.outcome, attempt.cause) == ("accepted", "accepted", None)
    assert (attempt.tokens.generated, attempt.tokens.released) == (3, 3)
    assert (attempt.tokens.wasted, attempt.tokens.saved, attempt.tokens.limit) == (0, 0, 10)
    assert not attempt.tokens.estimated


async def test_what_backtracking_keeps_is_not_wasted() -> None:
    backend = ScriptedBackend(BAD, Script(" Three. Four.", delay=1))
    async with (
        start_session(backend=backend) as m,
        m.stream("?", requirements=[never_bad()], strategy=BacktrackStrategy()) as result,
    ):
        await result.acomplete()
    first, second = result.trace.children
    assert (first.tokens.generated, first.tokens.released, first.tokens.wasted) == (3, 2, 1)
    assert (second.tokens.generated, second.tokens.released, second.tokens.wasted) == (2, 2, 0)
    assert (result.trace.tokens.generated, result.trace.tokens.wasted) == (5, 1)


async def test_a_race_says_who_was_stopped_by_whom() -> None:
    backend = ScriptedBackend(GOOD, Script("a b c d e f g h", delay=1))
    async with start_session(backend=backend, model_options=LIMIT) as m:
        result = await m.ainstruct(
            "?",
            requirements=[never_bad()],
            strategy=RacingStrategy(2),
            return_sampling_results=True,
        )
    assert result.trace is not None
    won, lost = sorted(result.trace.children, key=lambda attempt: attempt.outcome)
    assert (won.outcome, lost.outcome) == ("accepted", "stopped")
    assert lost.cause is not None
    assert str(lost.cause) == f"choice after 3.00 s: {won.what} was chosen"
    assert (lost.tokens.wasted, lost.tokens.saved) == (
        lost.tokens.generated,
        10 - lost.tokens.generated,
    )


async def test_a_rejected_whole_text_says_which_requirement_it_does_not_meet() -> None:
    wanted = check("short", simple_validate(lambda text: len(text) < 3, reason="too long"))
    strategy = RejectionSamplingStrategy(loop_budget=2)
    async with start_session(backend=ScriptedBackend("One.", "1.")) as m:
        thunk = await m.ainstruct("?", requirements=[wanted], strategy=strategy)
        assert await thunk == "1."
    assert thunk.sampling is not None
    assert thunk.sampling.trace is not None
    first, second = thunk.sampling.trace.children
    assert (first.outcome, second.outcome) == ("rejected", "accepted")
    assert str(first.cause) == "requirement 'short': too long"
    assert first.tokens.wasted == 1


def asks(name: str) -> Check:
    async def judge(chunk: str, backend: Backend, ctx: Context) -> str:
        said = await ask(backend, ctx, f"judge {name} {chunk}")
        return "pass" if said == "yes" else "fail"

    return Check(judge)


async def test_judges_are_in_it_and_those_that_were_cut() -> None:
    text = ["One. ", "Two. ", Pause(20), "Three."]
    answers = {
        "judge quick One.": Script(["yes"], delay=1),
        "judge quick Two.": Script(["no"], delay=1),
        "judge slow One.": Script(["yes"], delay=50),
    }
    backend = ScriptedBackend(lambda request: answers.get(request.messages[-1].content, text))
    async with (
        start_session(backend=backend) as m,
        m.stream("?", requirements=[asks("slow"), asks("quick")]) as result,
    ):
        await result.acomplete()
    (attempt,) = result.trace.children
    assert (attempt.outcome, attempt.ended) == ("failed", 2)
    assert sorted((judge.what, judge.outcome, judge.ended) for judge in attempt.children) == [
        ("judge 'judge quick One.'", "answered", 1),
        ("judge 'judge quick Two.'", "answered", 2),
        ("judge 'judge slow One.'", "stopped", 2),
    ]


async def test_errors_cancellations_and_preconditions_are_causes() -> None:
    broken = ScriptedBackend([*"ab", Fail(ModelError("out of memory"))])
    async with start_session(backend=broken) as m:
        result = await m.stream("?")
        with pytest.raises(ModelError):
            await result.acomplete()
    assert str(result.trace.cause) == "error ModelError: out of memory"
    assert result.trace.children[0].outcome == "error"

    async with start_session(backend=ScriptedBackend(GOOD)) as m:
        result = await m.stream("?")
        assert result.trace.outcome == "running"
        await anyio.sleep(1.5)
        result.cancel("the user left")
        await result.acomplete()
    assert (result.trace.outcome, str(result.trace.cause)) == ("cancelled", "cancel: the user left")
    assert result.trace.children[0].outcome == "cancelled"

    no = check("about rivers", simple_validate(lambda _: False, reason="it is not"))
    async with start_session(backend=ScriptedBackend(GOOD)) as m:
        result = await m.stream("?", preconditions=[no])
        with pytest.raises(PreconditionFailed):
            await result.acomplete()
    assert result.trace.outcome == "rejected"
    assert str(result.trace.cause) == "precondition 'about rivers': it is not"


async def test_it_can_be_read_as_text_and_as_json() -> None:
    backend = ScriptedBackend(BAD, GOOD)
    async with start_session(backend=backend, model_options=LIMIT) as m:
        strategy = RejectionSamplingStrategy(loop_budget=2)
        async with m.stream("Count.", requirements=[never_bad()], strategy=strategy) as result:
            await result.acomplete()
    assert str(result.trace).splitlines() == [
        "Count.: accepted, 6.00 s, about 6 tokens, 5 released, 3 wasted, up to 7 of the limits saved",
        "├─ attempt 1: failed, 3.00 s, about 3 tokens, 2 released, 3 wasted, up to 7 of a limit of 10 saved",
        "│     because of requirement 'nothing bad' at chunk 2 after 3.00 s: nothing bad",
        "└─ attempt 2: accepted, 3.00 s, 3 tokens, 3 released",
    ]
    told = json.loads(result.trace.to_json())
    assert told["children"][0]["cause"]["kind"] == "requirement"
    assert isinstance(result.trace, Trace)


def test_a_count_says_only_what_there_is_to_say() -> None:
    assert str(TokenCount(generated=3)) == "3 tokens"
    assert str(TokenCount(generated=3, wasted=1, estimated=True)) == "about 3 tokens, 1 wasted"


def test_token_counts_can_be_added_and_have_no_limit_then() -> None:
    one = TokenCount(generated=3, reasoning=1, released=2, wasted=1, limit=9, saved=6)
    other = TokenCount(generated=4, reasoning=2, released=1, limit=5, saved=1, estimated=True)
    assert one + other == TokenCount(
        generated=7, reasoning=3, released=3, wasted=1, saved=7, estimated=True
    )
