"""Several attempts at once: races, votes, the best of them; and their errors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

import anyio
import pytest
from kit import Without, is_, sentences, slow

from mellea_sc import (
    BackendError,
    BestOfNStrategy,
    Context,
    InvalidOption,
    InvalidVerdict,
    MajorityVotingStrategy,
    Requirement,
    ValidationResult,
    start_session,
)
from mellea_sc.core.backend import Backend
from mellea_sc.stdlib import RacingStrategy, SamplingStrategy
from mellea_sc.stdlib.sampling.several import Score
from mellea_sc.testing import Fail, Pause, Script, ScriptedBackend, Stall

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


async def test_the_first_that_is_valid_wins_and_the_others_are_stopped_in_that_moment() -> None:
    backend = ScriptedBackend(slow("good", 3), slow("good", 1), Script([Stall()]))
    async with start_session(backend=backend) as m:
        began = anyio.current_time()
        result = await m.ainstruct(
            "?",
            requirements=[is_("good")],
            strategy=RacingStrategy(3),
            return_sampling_results=True,
        )
        assert anyio.current_time() == pytest.approx(began + 1)
    assert result.success
    assert sorted(call.outcome for call in backend.calls) == ["cancelled", "cancelled", "ended"]
    assert len(result.sample_generations) == 3


async def test_a_candidate_that_fails_in_the_middle_is_replaced_while_the_budget_lasts() -> None:
    backend = ScriptedBackend(lambda _: sentences("Fine.", "A curse.", *["More."] * 9))
    async with start_session(backend=backend) as m:
        strategy = RacingStrategy(2, budget=5)
        result = await m.ainstruct(
            "?", requirements=[Without("curse")], strategy=strategy, return_sampling_results=True
        )
    assert not result.success
    assert len(backend.calls) == 5
    assert all(call.deltas_sent == 2 for call in backend.calls)


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 7])
async def test_a_race_whose_candidates_end_in_the_same_moment_spends_its_budget_exactly(
    budget: int,
) -> None:
    backend = ScriptedBackend(lambda _: Script([Pause(1), "bad"]))
    async with start_session(backend=backend) as m:
        result = await m.ainstruct(
            "?",
            requirements=[is_("good")],
            strategy=RacingStrategy(3, budget=budget),
            return_sampling_results=True,
        )
    assert not result.success
    assert len(backend.calls) == len(result.sample_generations) == budget
    assert all(call.outcome == "ended" for call in backend.calls)


async def test_an_error_of_one_candidate_is_logged_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = ScriptedBackend(Fail(BackendError("down")), slow("good", 1))
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", requirements=[is_("good")], strategy=RacingStrategy(2))
        assert await thunk == "good"
    (record,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert record.exc_info is not None
    assert "down" in str(record.exc_info[1])


@pytest.mark.parametrize("strategy", [RacingStrategy(2), BestOfNStrategy(2)])
async def test_when_all_fail_no_error_is_lost(strategy: SamplingStrategy) -> None:
    backend = ScriptedBackend(Fail(BackendError("one")), Fail(BackendError("two")))
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", requirements=[is_("good")], strategy=strategy)
        with pytest.raises(ExceptionGroup) as caught:
            await thunk
    assert sorted(map(str, caught.value.exceptions)) == ["one", "two"]


@pytest.mark.parametrize("strategy", [BestOfNStrategy(2), MajorityVotingStrategy(2)])
async def test_a_good_answer_is_not_lost_when_the_last_attempt_fails(
    strategy: SamplingStrategy, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Script([Pause(2), Fail(BackendError("cut"))])
    async with start_session(backend=ScriptedBackend("good", broken)) as m:
        thunk = await m.ainstruct("?", requirements=[is_("good")], strategy=strategy)
        assert await thunk == "good"
    assert "others went on" in caplog.text


async def test_a_race_of_rejected_and_broken_candidates_raises_the_error() -> None:
    broken = Script([Pause(2), Fail(BackendError("cut"))])
    async with start_session(backend=ScriptedBackend("bad", broken)) as m:
        strategy = RacingStrategy(2, budget=2)
        thunk = await m.ainstruct("?", requirements=[is_("good")], strategy=strategy)
        with pytest.raises(BackendError, match="cut"):
            await thunk


async def test_a_validators_error_ends_all_and_hides_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wrong(_: Context) -> ValidationResult:
        raise ZeroDivisionError

    down = Fail(BackendError("down"))
    backend = ScriptedBackend(down, slow("text", 1), Script([Stall()]))
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct(
            "?", requirements=[Requirement("r", wrong)], strategy=RacingStrategy(3)
        )
        with pytest.raises(ZeroDivisionError):
            await thunk
    assert "down" in caplog.text
    assert "cancelled" in [call.outcome for call in backend.calls]


# --- the best of them ---------------------------------------------------------------------------------------


async def length(text: str) -> float:
    await anyio.sleep(1)
    return len(text)


class Long(Requirement):
    """Scores by length; each copy judges one answer."""

    used: bool = False

    async def validate(self, backend: Backend, ctx: Context, **_: object) -> ValidationResult:  # type: ignore[override]
        assert not self.used
        self.used = True
        await anyio.sleep(1)
        output = ctx.last_output()
        assert output is not None
        return ValidationResult(True, score=len(output.value))


@pytest.mark.parametrize("score", [lambda text: len(text), length, Long("long")])
async def test_the_answer_that_is_worth_most_is_kept(score: Score) -> None:
    async with start_session(backend=ScriptedBackend("a", "ccc", "bb")) as m:
        began = anyio.current_time()
        thunk = await m.ainstruct("?", strategy=BestOfNStrategy(3, score=score))
        assert await thunk == "ccc"
        assert anyio.current_time() <= began + 1


async def test_without_a_score_the_validations_scores_count_and_a_rejected_answer_does_not() -> (
    None
):
    def scored(ctx: Context) -> ValidationResult:
        output = ctx.last_output()
        assert output is not None
        return ValidationResult(output.value != "dddd", score=len(output.value))

    async with start_session(backend=ScriptedBackend("a", "dddd", "ccc")) as m:
        strategy = BestOfNStrategy(3)
        thunk = await m.ainstruct("?", requirements=[Requirement("r", scored)], strategy=strategy)
        assert await thunk == "ccc"


@pytest.mark.parametrize("score", [lambda _: "much", lambda _: float("nan")])
async def test_a_score_that_is_no_number_is_an_error(score: Score) -> None:
    async with start_session(backend=ScriptedBackend("a", Script([Stall()]))) as m:
        with pytest.raises(InvalidVerdict):
            await (await m.ainstruct("?", strategy=BestOfNStrategy(2, score=score)))


# --- votes -----------------------------------------------------------------------------------------------------


async def test_the_majority_ends_the_vote_as_soon_as_it_is_certain() -> None:
    never = Script([Stall()])
    backend = ScriptedBackend("Yes", slow(" yes ", 1), slow("YES", 2), never, Script([Stall()]))
    async with start_session(backend=backend) as m:
        began = anyio.current_time()
        result = await m.ainstruct(
            "?", strategy=MajorityVotingStrategy(5), return_sampling_results=True
        )
        assert anyio.current_time() == pytest.approx(began + 2)
    assert result.success
    assert result.value.strip().lower() == "yes"
    assert [call.outcome for call in backend.calls].count("cancelled") == 2


async def test_what_an_answer_says_is_the_keys_business_and_a_rejected_one_has_no_vote() -> None:
    def first(text: str) -> str:
        return text[0]

    backend = ScriptedBackend("a1", "b1", "b2", "x1", "x2", "x3")
    async with start_session(backend=backend) as m:
        strategy = MajorityVotingStrategy(6, key=first)
        thunk = await m.ainstruct("?", requirements=[Without("x")], strategy=strategy)
        assert (await thunk)[0] == "b"


Normal = Literal["NFC", "NFKC"] | None


@pytest.mark.parametrize(
    ("same", "normalize", "is_same"),
    [
        (("caf\u00e9", "cafe\u0301"), "NFC", True),
        (("Cafe\u0301 ", "CAF\u00c9"), "NFC", True),
        (("\u1112\u1161\u11ab", "\ud55c"), "NFC", True),
        (("caf\u00e9", "cafe\u0301"), "NFKC", True),
        (("\uff11\uff12", "12"), "NFKC", True),
        (("\uff11\uff12", "12"), "NFC", False),
        (("caf\u00e9", "cafe\u0301"), None, False),
    ],
)
@pytest.mark.parametrize("key", [None, lambda text: text.strip().lower()], ids=["says", "key"])
async def test_what_is_composed_otherwise_says_the_same(
    same: tuple[str, str], normalize: Normal, is_same: bool, key: Callable[[str], str] | None
) -> None:
    strategy = MajorityVotingStrategy(7, key, normalize=normalize)
    answers = [*same, *same, "tea", "tea", "tea"]
    async with start_session(backend=ScriptedBackend(*answers)) as m:
        chosen = await (await m.ainstruct("?", strategy=strategy))
    assert (chosen in same) == is_same


def fails_at(bad: str) -> Callable[[str], str]:
    def picky(text: str) -> str:
        if text == bad:
            raise LookupError(text)
        return text

    return picky


def gives(value: object) -> Callable[[str], Any]:
    def odd(text: str) -> object:
        return value

    return odd


ONE_BAD = ["good", "bad", "good", "better"]
AT_ONCE = [lambda text: text, lambda text: Script([Pause(1), text])]


@pytest.mark.parametrize("script", AT_ONCE, ids=["at once", "after a while"])
@pytest.mark.parametrize(
    ("strategy", "error", "says"),
    [
        (MajorityVotingStrategy(4, fails_at("bad")), LookupError, "bad"),
        (MajorityVotingStrategy(4, key=int), ValueError, "invalid literal"),
        (MajorityVotingStrategy(4, gives([])), InvalidVerdict, r"key <function .*odd.* hashable"),
        (MajorityVotingStrategy(4, gives(([],))), InvalidVerdict, r"key <function .*odd.*hashable"),
        (BestOfNStrategy(4, lambda text: len(fails_at("bad")(text))), LookupError, "bad"),
        (
            BestOfNStrategy(4, gives(float("nan"))),
            InvalidVerdict,
            r"<function .*odd.* number, not nan",
        ),
        (
            BestOfNStrategy(4, gives("much")),
            InvalidVerdict,
            r"<function .*odd.* number, not 'much'",
        ),
    ],
)
async def test_an_error_in_a_key_or_a_score_is_raised_once_as_itself_and_names_it(
    strategy: MajorityVotingStrategy | BestOfNStrategy,
    error: type[Exception],
    says: str,
    script: Callable[[str], Script],
) -> None:
    for _ in range(2):  # a strategy keeps nothing from one call to the next
        async with start_session(backend=ScriptedBackend(*map(script, ONE_BAD))) as m:
            thunk = await m.ainstruct("?", strategy=strategy)
            with pytest.raises(error, match=says) as caught:
                await thunk
        named = strategy.key if isinstance(strategy, MajorityVotingStrategy) else strategy.score
        (note,) = [one for one in caught.value.__notes__ if "when the strategy asked" in one]
        assert repr(named) in note


async def test_a_validation_whose_score_is_not_a_number_is_named() -> None:
    def scored(_: Context) -> ValidationResult:
        return ValidationResult(True, score=float("nan"))

    async with start_session(backend=ScriptedBackend("a", "b")) as m:
        requirement = Requirement("be short", scored)
        thunk = await m.ainstruct("?", requirements=[requirement], strategy=BestOfNStrategy(2))
        with pytest.raises(InvalidVerdict, match="be short"):
            await thunk


async def test_a_score_whose_model_is_down_costs_its_attempt_alone() -> None:
    def score(text: str) -> float:
        if text == "a":
            raise BackendError("down")
        return len(text)

    async with start_session(backend=ScriptedBackend("a", "ccc", "bb")) as m:
        assert await (await m.ainstruct("?", strategy=BestOfNStrategy(3, score))) == "ccc"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RacingStrategy(0),
        lambda: RacingStrategy(2, budget=0),
        lambda: BestOfNStrategy(True),
        lambda: BestOfNStrategy(2, score="x"),  # type: ignore[arg-type]
        lambda: MajorityVotingStrategy(2, key=3),  # type: ignore[arg-type]
        lambda: MajorityVotingStrategy(1.5),  # type: ignore[arg-type]
        lambda: MajorityVotingStrategy(2, normalize="NFD"),  # type: ignore[arg-type]
    ],
)
async def test_wrong_arguments_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(InvalidOption):
        wrong()


async def test_going_back_that_comes_to_its_end_does_not_end_the_race() -> None:
    bad = [sentences("A curse.", delay=0.1) for _ in range(8)]
    backend = ScriptedBackend(bad[0], slow("Good.", 9), *bad[1:])
    async with start_session(backend=backend) as m:
        requirement = Without("curse", on_fail="backtrack")
        strategy = RacingStrategy(2, budget=2)
        thunk = await m.ainstruct("?", requirements=[requirement], strategy=strategy)
        assert await thunk == "Good."
    backend.assert_exhausted()
