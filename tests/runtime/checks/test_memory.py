"""A text that goes on where another one was good is judged as if it had been one text from the start."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc import BacktrackStrategy, Requirement, start_session
from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.requirement import PartialValidationResult, ValidationResult
from mellea_sc.testing.clock import LoopName, run_virtual
from mellea_sc.testing.scripted import ScriptedBackend
from mellea_sc.testing.strategies import cuts


class Remembers(Requirement):
    """Says what it was handed, by the copy that was handed it."""

    def __init__(self, chunking: str | None, never: str | None = None, every: int = 1) -> None:
        super().__init__("remembers", chunking=chunking, every=every)
        self.never = never
        self.heard: list[str] = []
        self.told: list[list[str]] = []

    def __copy__(self) -> Remembers:
        new = super().__copy__()
        new.told = self.told  # the copies share it
        return new

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        if self.never is not None and self.never in chunk:
            return PartialValidationResult("fail", reason=f"{self.never} in it")
        self.heard.append(chunk)
        return PartialValidationResult("pass")

    async def validate(
        self, backend: Backend, ctx: Context, *, format: object = None, model_options: object = None
    ) -> ValidationResult:
        self.told.append(self.heard)
        return ValidationResult(True)


def answered(
    answers: Sequence[Sequence[str]],
    requirements: Sequence[Requirement],
    chunking: str | None,
    loop: LoopName,
    hold_back: bool,
) -> str | None:
    """The accepted text, if there is one."""

    async def program() -> str | None:
        async with (
            start_session(backend=ScriptedBackend(*map(list, answers))) as m,
            m.stream(
                "?",
                requirements=requirements,
                chunking=chunking,
                strategy=BacktrackStrategy(budget=len(answers)),
                hold_back=hold_back,
            ) as result,
        ):
            await result.acomplete()
        return result.full_text if result.completed else None

    return run_virtual(program, backend=loop)


WORDS = st.sampled_from(["One", "two", "three.", "5", "is.", " ", " ", "  ", "\n\n", "bad"])


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@given(data=st.data())
def test_every_judge_ends_knowing_what_it_would_know_of_the_text_from_the_start(
    loop: LoopName, data: st.DataObject
) -> None:
    texts = ["".join(data.draw(st.lists(WORDS, max_size=8))) for _ in range(3)]
    texts.append("Fine. It ends.")
    answers = [data.draw(cuts(text, max_deltas=6)) for text in texts]
    chunking = data.draw(st.sampled_from(["sentence", "word", "paragraph"]))
    judges = [
        Remembers(data.draw(st.sampled_from([None, "sentence", "word"])), every=every)
        for every in data.draw(st.lists(st.sampled_from([1, 1, 2]), max_size=3))
    ]
    hold_back = data.draw(st.booleans())
    text = answered(answers, [*judges, Remembers(None, "bad")], chunking, loop, hold_back)
    if text is None:
        return
    for judge in judges:
        alone = Remembers(judge.chunking, every=judge.every)  # type: ignore[arg-type]
        assert answered([[text]], [alone], chunking, loop, hold_back) == text
        assert judge.told[-1] == alone.told[-1]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_piece_that_ended_only_because_of_what_came_next_is_judged_anew(loop: LoopName) -> None:
    sentences = Remembers("sentence")
    answers = [["One.", " bad"], ["5 is."]]
    text = answered(answers, [sentences, Remembers(None, "bad")], None, loop, hold_back=False)
    assert text == "One.5 is."
    assert sentences.told == [["One.5 is."]]
