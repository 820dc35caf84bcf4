"""The library says what was measured to work best, and the harness that measures it counts by the rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mellea_sc import ChatContext, Instruction, SimpleContext
from mellea_sc.core.backend import GenerationRequest
from mellea_sc.core.question import messages_for
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib.sampling.base import MultiTurnStrategy
from mellea_sc.stdlib.sampling.plan import WithFeedback, continuation_of
from mellea_sc.testing.scripted import ScriptedBackend

items = pytest.importorskip("benchmarks.prompting.items", reason="only in a checkout")
run = pytest.importorskip("benchmarks.prompting.run", reason="only in a checkout")
wordings = pytest.importorskip("benchmarks.prompting.wordings", reason="only in a checkout")

RESULTS = Path(run.__file__).parents[1] / "prompting.json"
ASKED = "“Requirements:” before the task"
REPAIRED = "in the list of requirements, as “an earlier answer failed by this:”"
WENT_ON = "“Continue your answer.”"
RULES = ["be polite", "at most 3 sentences"]


def test_an_instruction_says_its_requirements_as_the_wording_that_won() -> None:
    said = messages_for(Instruction("Write.", RULES), SimpleContext(), {})
    assert list(said) == wordings.ASKING[ASKED]("Write.", RULES)


def test_a_repair_says_the_reasons_as_the_wording_that_was_chosen() -> None:
    action = Instruction("Write.", RULES)
    said = messages_for(WithFeedback(action, ["too long"]), SimpleContext(), {})
    assert list(said) == wordings.REPAIRING[REPAIRED](action.format_for_llm(), ["too long"])
    assert WithFeedback("Write.", ["too long"]).format_for_llm() == (
        "Requirements:\n- an earlier answer failed by this: too long\n\nWrite."
    )


def test_an_instruction_with_words_of_its_own_keeps_them_in_a_repair() -> None:
    class Own(Instruction):
        def format_for_llm(self) -> str:
            return "as I say it"

    said = WithFeedback(Own("Write.", RULES), ["too long"]).format_for_llm()
    assert said.endswith("\n\nas I say it")
    assert "too long" in said


def test_where_nothing_can_be_prefilled_the_model_is_asked_to_continue() -> None:
    begun = ModelOutputThunk.computed("It began.")
    action, ctx = continuation_of("Write.", SimpleContext(), begun, prefills=False)
    assert list(messages_for(action, ctx, {})) == wordings.GOING_ON[WENT_ON]("Write.", "It began.")


def test_a_conversation_is_told_as_the_wording_that_was_chosen() -> None:
    ctx = ChatContext().add("Write.").add(ModelOutputThunk.computed("Bad."))
    no = (Instruction("x", ["be kind"]).requirements[0], run_verdict())
    action, after = MultiTurnStrategy.repair(ChatContext(), ctx, ["Write."], [], [[no]])
    chosen = wordings.TURNING["“Your answer was rejected, because:”"]
    assert list(messages_for(action, after, {})) == chosen("Write.", "Bad.", ["too rude"])


def run_verdict() -> object:
    from mellea_sc import ValidationResult

    return ValidationResult(False, reason="too rude")


@pytest.mark.skipif(not RESULTS.exists(), reason="the source distribution has no measurements")
def test_what_the_library_says_is_best_among_what_was_measured() -> None:
    rows = json.loads(RESULTS.read_text())

    def right(part: str, wording: str) -> int:
        found = [row for row in rows[part] if row["wording"] == wording]
        assert len(found) >= 20
        return sum(row["right"] for row in found)

    reference = {"no requirement is said", "nothing is said", "prefilled, where the server can"}
    for part, chosen, others, near in (
        ("asking", ASKED, wordings.ASKING, 0),
        # its lead or lag is chance; it is the one that says reasons and descriptions rightly
        ("repairing", REPAIRED, wordings.REPAIRING, 2),
        ("going on", WENT_ON, wordings.GOING_ON, 2),
    ):
        best = max(right(part, name) for name in others if name not in reference)
        assert right(part, chosen) >= best - near, part


@pytest.mark.anyio
async def test_every_part_asks_every_wording_about_every_item() -> None:
    def answer(request: GenerationRequest) -> str:
        return "Paris is the capital." if "France" in str(request.messages) else "I do not know."

    backend = ScriptedBackend(answer)
    found: dict[str, list[dict[str, object]]] = {}
    await run.measure(backend, done=found.__setitem__)
    assert len(found["asking"]) == len(items.QUESTIONS) * len(wordings.ASKING) >= 60 * 4
    assert len(found["going on"]) == 2 * len(items.BEGINNINGS) * len(wordings.GOING_ON)
    assert {row["wording"] for row in found["repairing"]} == set(wordings.REPAIRING)
    assert {row["question"] for row in found["asking"] if row["right"]} == {
        "What is the capital of France?"
    }
    assert all(call.request.options["temperature"] == 0 for call in backend.calls)


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("The capital of France is Paris.", True),
        ("Paris", True),
        ("The capital of France is Lyon.", False),
        ("Paris. I will be polite.", False),
        ("The requirements say Paris.", False),
    ],
)
def test_an_answer_is_right_with_the_fact_and_without_the_prompts_words(
    said: str, right: bool
) -> None:
    item = items.Item("What is the capital of France?", "paris", ("be polite",))
    assert item.is_right(said) is right


@pytest.mark.parametrize(
    ("begun", "said", "goes_on"),
    [
        ("Birds fly with wings.", "They beat them up and down.", True),
        ("Birds fly with", "wings that they beat.", True),
        ("Birds fly with", "Wings that they beat.", False),
        ("Birds fly with their wings all day.", "Birds fly with their wings and tails.", False),
        ("Birds fly with wings.", "Here is the rest of it.", False),
        ("Birds fly with wings.", "They do.", False),
    ],
)
def test_a_text_goes_on_with_something_new(begun: str, said: str, goes_on: bool) -> None:
    assert run.goes_on(begun, said) is goes_on
