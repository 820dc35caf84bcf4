"""What backtracking asks of the model: the prompt, the beginning of the answer, and how much of it is left."""

from __future__ import annotations

import pytest

from mellea_sc import BacktrackStrategy, ModelOption, MustNotMatch, start_session
from mellea_sc.core.backend import GenerationRequest
from mellea_sc.testing.scripted import ScriptedBackend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(two_orders: tuple[str, dict[str, object]]) -> tuple[str, dict[str, object]]:
    """The event loop of a test."""
    return two_orders


FIRST = "One two three. Four five six. Seven 8 nine."  # a delta for each word
SECOND = " Seven 88 nine."
THIRD = " Ten eleven twelve."


async def asked(strategy: BacktrackStrategy) -> tuple[list[GenerationRequest], str]:
    backend = ScriptedBackend(FIRST, SECOND, THIRD)
    async with start_session(backend=backend, model_options={ModelOption.MAX_NEW_TOKENS: 20}) as m:
        rules = [MustNotMatch(r"\d", window=1)]
        async with m.stream("Count.", requirements=rules, strategy=strategy) as result:
            await result.acomplete()
    return [call.request for call in backend.calls], result.full_text


async def test_the_answer_reads_well_at_the_seam() -> None:
    _, text = await asked(BacktrackStrategy())
    assert text == "One two three. Four five six. Ten eleven twelve."


async def test_what_is_kept_counts_to_the_most_tokens_of_an_answer() -> None:
    requests, _ = await asked(BacktrackStrategy())
    assert [one.options[ModelOption.MAX_NEW_TOKENS] for one in requests] == [20, 14, 14]


async def test_the_model_goes_on_from_what_is_good() -> None:
    requests, _ = await asked(BacktrackStrategy())
    assert [one.messages[-1].content for one in requests[1:]] == [
        "One two three. Four five six."
    ] * 2


async def test_without_feedback_the_prompt_stays_the_same() -> None:
    requests, _ = await asked(BacktrackStrategy(feedback=False))
    assert {one.messages[0].content for one in requests} == {"Count."}
    requests, _ = await asked(BacktrackStrategy(feedback=True))
    assert "match" in requests[1].messages[0].content


async def test_at_the_beginning_it_is_asked_anew_as_long_as_the_budget_lasts() -> None:
    backend = ScriptedBackend("1.", "2.", "3.", "4.", "Five.")
    async with start_session(backend=backend) as m:
        strategy = BacktrackStrategy(tries=1, budget=5)
        rules = [MustNotMatch(r"\d", window=1)]
        async with m.stream("Count.", requirements=rules, strategy=strategy) as result:
            await result.acomplete()
    assert result.full_text == "Five."


async def test_an_answer_that_is_at_its_end_already_has_no_white_space_there() -> None:
    backend = ScriptedBackend("One two.\n\nThree 4.", [])
    async with start_session(backend=backend) as m:
        rules = [MustNotMatch(r"\d", window=1)]
        async with m.stream("Count.", requirements=rules, strategy=BacktrackStrategy()) as result:
            await result.acomplete()
    assert result.completed
    assert result.full_text == "One two."
