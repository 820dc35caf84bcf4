"""Contract 4.4 and 4.14: with edits there is one text, which every requirement has passed, for every cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit import Check, always

from mellea_sc import (
    BacktrackStrategy,
    ChunkEvent,
    CompletedEvent,
    MaxWords,
    ModelOption,
    ModelOutputThunk,
    MustMatch,
    MustNotMatch,
    NoPII,
    NoSecrets,
    PartialValidationResult,
    Requirement,
    ValidationResult,
    start_session,
)
from mellea_sc.core.backend import Backend, GenerationRequest
from mellea_sc.core.base import Context
from mellea_sc.stdlib import EditEvent, StreamEvent
from mellea_sc.stdlib.context import ChatContext
from mellea_sc.stdlib.streaming import StreamChunkingResult
from mellea_sc.testing import Pause, Script, ScriptedBackend, run_virtual
from mellea_sc.testing.clock import LoopName
from mellea_sc.testing.strategies import cuts

KEY = "AKIAIOSFODNN7EXAMPLE"
LOOPS: Sequence[LoopName] = ("asyncio", "trio")


@attrs.define
class Ran:
    """What a run gave to those who read its chunks, its events, and afterwards its result."""

    result: StreamChunkingResult
    chunks: list[str]
    events: list[StreamEvent]
    turn: str | None
    judged: list[str]


class Sees(Requirement):
    """Passes, and says which text it was shown at the end."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__("sees")
        self.seen = (seen,)

    async def validate(
        self, backend: Backend, ctx: Context, *, format: object = None, model_options: object = None
    ) -> ValidationResult:
        output = ctx.last_output()
        assert output is not None
        self.seen[0].append(output.value)
        return ValidationResult(True)


def streamed(
    deltas: Sequence[str],
    requirements: Sequence[Requirement],
    loop: LoopName = "asyncio",
    *,
    seed: int | None = None,
    **options: object,
) -> Ran:
    async def program() -> Ran:
        judged: list[str] = []
        chunks: list[str] = []
        events: list[StreamEvent] = []
        backend = ScriptedBackend(list(deltas))
        async with start_session(backend=backend, ctx=ChatContext()) as m:
            result = await m.stream("?", requirements=[*requirements, Sees(judged)], **options)  # type: ignore[arg-type]

            async def read_chunks() -> None:
                chunks.extend([chunk async for chunk in result.astream()])

            async def read_events() -> None:
                events.extend([one async for one in result.events()])

            async with anyio.create_task_group() as tg:
                tg.start_soon(read_chunks)
                tg.start_soon(read_events)
            await result.acomplete()
            output = m.ctx.last_output()
        return Ran(result, chunks, events, output.value if output else None, judged)

    return run_virtual(program, backend=loop, seed=seed)


def passes(text: str, requirements: Sequence[Requirement], loop: LoopName) -> bool:
    async def program() -> bool:
        backend = ScriptedBackend()
        async with start_session(backend=backend) as m:
            ctx = ChatContext().add(ModelOutputThunk.computed(text))
            verdicts = [await one.validate(m.backend, ctx) for one in requirements]
        return all(verdicts)

    return run_virtual(program, backend=loop)


def check_one_text(ran: Ran, requirements: Sequence[Requirement], loop: LoopName) -> None:
    result = ran.result
    text = result.full_text
    pieces = [one for one in ran.events if isinstance(one, ChunkEvent)]
    last = ran.events[-1]
    assert isinstance(last, CompletedEvent)
    assert "".join(one.before + one.text for one in pieces) == last.full_text == text
    assert [one.text for one in pieces if one.text] == ran.chunks
    if result.completed:
        assert ran.turn == text
        assert ran.judged == [text]
        assert passes(text, requirements, loop)
    else:
        assert ran.turn is None


WORDS = (
    "cold",
    "co",
    "ld",
    "[x]",
    KEY[:6],
    KEY[6:],
    "eve",
    "@",
    "example.org",
    "ok",
    " ",
    ". ",
    "\n\n",
)
MAKERS: Sequence[Callable[[], Requirement]] = (
    lambda: MustNotMatch("cold", on_fail="filter"),
    lambda: MustNotMatch("co", on_fail="fix", replacement="ld"),
    lambda: MustNotMatch(r"\[x\]", on_fail="filter"),
    lambda: MustNotMatch("ok", on_fail="fix", replacement="not ok"),
    lambda: MustNotMatch(r"\s{2,}", on_fail="fix", replacement=" "),
    lambda: MustNotMatch("xx"),
    lambda: NoSecrets(on_fail="fix"),
    lambda: NoSecrets(),
    lambda: NoPII(on_fail="filter"),
    lambda: NoPII(),
    lambda: MaxWords(4),
    lambda: MaxWords(5, on_fail="filter"),
)


@pytest.mark.parametrize("loop", LOOPS)
@given(data=st.data(), seed=st.none() | st.integers(0, 9))
def test_4_4_what_is_shown_kept_and_validated_is_one_text_that_all_have_passed_for_every_cut(
    loop: LoopName, data: st.DataObject, seed: int | None
) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=10)))
    makers = data.draw(st.lists(st.sampled_from(MAKERS), min_size=1, max_size=3))
    chunking = data.draw(st.sampled_from(["sentence", "word", "paragraph", None]))
    runs: list[Ran] = []
    for deltas in ([text], [*text], data.draw(cuts(text, max_deltas=6))):
        requirements = [make() for make in makers]
        ran = streamed(deltas, requirements, loop, seed=seed, chunking=chunking)
        check_one_text(ran, requirements, loop)
        runs.append(ran)
    assert len({ran.result.completed for ran in runs}) == 1
    *shorter, longest = sorted((ran.result.full_text for ran in runs), key=len)
    if runs[0].result.completed:
        assert {*shorter} == {longest}
        if chunking is not None:
            assert len({tuple(ran.chunks) for ran in runs}) == 1
    else:
        # a fail stops at once: how much the other lanes had passed by then, of the same text, is chance
        assert all(longest.startswith(text) for text in shorter)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("text", "requirements", "want"),
    [
        (
            "one\ttwo. three",
            [MustNotMatch("\t", on_fail="fix", replacement="  ")],
            "one  two. three",
        ),
        (
            "list\n* one\n* two.",
            [MustNotMatch(r"\n\* ", on_fail="fix", replacement=", ")],
            "list, one, two.",
        ),
        ("one\u3000two. three", [MustNotMatch("\u3000", on_fail="filter")], "onetwo. three"),
        ("one  two.  ", [MustNotMatch(" {2}", on_fail="filter")], "onetwo."),
        ("a bad b", [MustNotMatch("bad", on_fail="filter")], "a  b"),
        ("To: eve@example.org\n\nHi.\n", [NoPII(on_fail="fix")], "To: [e-mail]\n\nHi.\n"),
    ],
)
def test_4_4_an_edit_changes_exactly_the_span_that_failed(
    loop: LoopName, text: str, requirements: Sequence[Requirement], want: str
) -> None:
    for chunking in (None, "sentence", "word", "paragraph"):
        for deltas in ([text], [*text]):
            assert streamed(deltas, requirements, loop, chunking=chunking).result.full_text == want


def test_4_4_what_an_edit_puts_together_is_edited_again_and_then_stops() -> None:
    twice = streamed(["It is so cocoldld today."], [MustNotMatch("cold", on_fail="filter")])
    assert (twice.result.completed, twice.result.full_text) == (True, "It is so  today.")
    assert len(twice.result.recorded_failures) == 2
    for deep in ("cococoldldld", "cocococoldldldld"):
        ran = streamed([f"Well. It is so {deep}."], [MustNotMatch("cold", on_fail="filter")])
        assert (ran.result.completed, ran.result.full_text) == (False, "Well.")
        assert [verdict.success for _, verdict in ran.result.streaming_failures] == ["fail"]


def test_4_4_what_a_replacement_brings_in_is_judged_by_those_before_it_and_by_itself() -> None:
    mail = "Mail eve@example.org now."
    named = streamed([mail], [NoPII(on_fail="fix"), MustNotMatch("e-mail")])
    assert (named.result.completed, named.chunks) == (False, [])
    before = streamed([mail], [MustNotMatch("e-mail", on_fail="filter"), NoPII(on_fail="fix")])
    assert (before.result.completed, before.result.full_text) == (True, "Mail [] now.")
    never = [MustNotMatch("dog", on_fail="fix", replacement="hotdog")]
    assert not streamed(["One dog."], never).result.completed


@pytest.mark.parametrize("loop", LOOPS)
def test_4_4_edits_are_told_where_they_stand_in_the_shown_text(loop: LoopName) -> None:
    text = "A bx. Two ax bx. Three. An ax."
    requirements = [
        MustNotMatch("ax", on_fail="filter"),
        MustNotMatch("bx", on_fail="fix", replacement="b. B"),
    ]
    ran = streamed([*text], requirements, loop)
    assert ran.result.full_text == "A b. B. Two  b. B. Three. An ."
    assert ran.result.trace.children[0].edits == 4
    assert str(ran.result.trace).endswith(", 4 edits")
    told = [
        one.requirement if isinstance(one, EditEvent) else one.text
        for one in ran.events
        if isinstance(one, EditEvent | ChunkEvent)
    ]
    assert told == [1, "A b.", "B.", 0, 1, "Two  b.", "B.", "Three.", 0, "An ."]
    assert [
        requirements.index(one) if one in requirements else one.pattern.pattern
        for one, _ in ran.result.recorded_failures
    ] == ["bx", "ax", "bx", "ax"]  # type: ignore[attr-defined]


def test_an_editor_that_waits_is_asked_once_about_what_nobody_has_edited() -> None:
    fine = ["One. ", "Two. ", "Three."]

    def asked(bad: str = "") -> list[str]:
        async def judge(chunk: str, backend: Backend, ctx: Context) -> object:
            if chunk == bad:
                return PartialValidationResult("fail", replacement="Good.")
            return "pass"

        check = Check(judge)
        check.on_fail = "fix"
        streamed(fine, [check])
        return check.seen.started

    assert asked() == ["One.", "Two.", "Three."]
    # after an edit the pass that made it and the one that follows judge for themselves
    assert sorted(asked("Two.")) == ["Good.", "One.", "Three.", "Three.", "Two."]


def test_one_that_counts_goes_on_counting_where_the_pass_before_was_given_another_text() -> None:
    class AtMostTwo(Requirement):
        count = 0

        async def stream_validate(
            self, chunk: str, *, backend: Backend, ctx: Context
        ) -> PartialValidationResult:
            self.count += 1
            fails = self.count > 2
            return PartialValidationResult("fail" if fails else "pass", replacement="")

        async def validate(self, backend: Backend, ctx: Context, **_: object) -> ValidationResult:
            return ValidationResult(self.count <= 2, reason=str(self.count))

    cuts_in_two = MustNotMatch(",", on_fail="fix", replacement=".")
    ran = streamed(
        ["One. ", "Two, ", "three. ", "Four."], [AtMostTwo(on_fail="filter"), cuts_in_two]
    )
    assert ran.result.full_text == "One. Two.  "
    assert ran.result.completed
    assert [bool(one) for one in ran.result.final_validations] == [True, True, True]


@pytest.mark.parametrize("loop", LOOPS)
def test_backtracking_goes_on_from_the_text_that_was_shown(loop: LoopName) -> None:
    async def program() -> tuple[str, list[str], str, int]:
        asked: list[str] = []

        def answer(request: GenerationRequest) -> Script:
            asked.append(request.messages[-1].content)
            texts = ["A bx here. Then ax.", "Then bx, fine."]
            return Script(texts[len(asked) - 1])

        requirements = [
            MustNotMatch("bx", on_fail="fix", replacement="b"),
            MustNotMatch("ax"),
        ]
        async with start_session(backend=ScriptedBackend(answer)) as m:
            result = await m.stream("?", requirements=requirements, strategy=BacktrackStrategy())
            chunks = [chunk async for chunk in result.astream()]
        return result.full_text, chunks, asked[1], len(result.recorded_failures)

    text, chunks, went_on_from, edits = run_virtual(program, backend=loop)
    assert text == "A b here. Then b, fine."
    assert chunks == ["A b here.", "Then b, fine."]
    assert went_on_from == "A b here."
    assert edits == 2


@pytest.mark.parametrize("loop", LOOPS)
def test_no_edit_reaches_back_into_what_was_shown_before_an_attempt(loop: LoopName) -> None:
    class NoBx(Requirement):
        async def stream_validate(
            self, chunk: str, *, backend: Backend, ctx: Context
        ) -> PartialValidationResult:
            bad = "bx" in chunk
            return PartialValidationResult("fail" if bad else "pass", replacement="Good.")

        async def validate(self, backend: Backend, ctx: Context, **_: object) -> ValidationResult:
            output = ctx.last_output()
            return ValidationResult(output is not None and "bx" not in output.value)

    async def program() -> tuple[str, list[str]]:
        # the editor's piece is a paragraph, of which the first attempt has shown a sentence
        rules = [NoBx("no bx", chunking="paragraph", on_fail="fix"), MustNotMatch("ax")]
        backend = ScriptedBackend("A dog.\n\nIt is ax.", "Bx bx.\n\nEnd.")
        async with start_session(backend=backend) as m:
            result = await m.stream(
                "?", requirements=rules, strategy=BacktrackStrategy(), chunking="word"
            )
            chunks = [chunk async for chunk in result.astream()]
        assert result.completed
        return result.full_text, chunks

    text, chunks = run_virtual(program, backend=loop)
    assert text == "A dog.\n\nIt is Good.\n\nEnd."
    assert chunks == text.split()


@pytest.mark.parametrize("loop", LOOPS)
def test_4_15_a_text_that_cannot_match_any_more_ends_there_and_the_model_is_stopped(
    loop: LoopName,
) -> None:
    async def program() -> None:
        backend = ScriptedBackend(Script(["2024-05-01", " is ", *["more. "] * 40], delay=1))
        date = MustMatch(r"\d{4}-\d\d-\d\d", full=True, on_fail="filter")
        async with start_session(backend=backend) as m:
            result = await m.stream("?", requirements=[date])
            await result.acomplete()
        assert (result.full_text, result.completed) == ("2024-05-01", True)
        assert all(result.final_validations)
        assert backend.calls[0].deltas_sent <= 3

    run_virtual(program, backend=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_4_15_what_cuts_off_stops_the_model_and_the_trace_says_what_was_saved(
    loop: LoopName,
) -> None:
    class Ends(Requirement):
        """The text ends before its first chunk with an end in it."""

        async def stream_validate(
            self, chunk: str, *, backend: Backend, ctx: Context
        ) -> PartialValidationResult:
            if "end" in chunk:
                return PartialValidationResult(
                    "fail", reason="it ends", replacement="", cuts_off=True
                )
            return PartialValidationResult("pass")

        async def validate(self, backend: Backend, ctx: Context, **_: object) -> ValidationResult:
            output = ctx.last_output()
            return ValidationResult(output is not None and "end" not in output.value)

    async def program(slow: bool) -> None:
        backend = ScriptedBackend(Script(["One. ", "The end. ", *["More. "] * 40], delay=1))
        rules: list[Requirement] = [Ends("ends", on_fail="filter"), MustNotMatch("xx")]
        if slow:  # it is before the one that cuts off, and is cancelled in the middle of a call
            rules.insert(0, editor := Check(always("pass", after=5)))
            editor.on_fail = "filter"
        async with start_session(backend=backend) as m:
            result = await m.stream(
                "?", requirements=rules, model_options={ModelOption.MAX_NEW_TOKENS: 100}
            )
            shown = [chunk async for chunk in result.astream()]
        call = backend.calls[0]
        assert (shown, result.full_text, result.completed) == (["One."], "One. ", True)
        assert all(result.final_validations)
        assert call.outcome in ("cancelled", "closed")
        assert call.deltas_sent <= (12 if slow else 3)
        [attempt] = result.trace.children
        assert (attempt.outcome, attempt.tokens.saved) == (
            "accepted",
            100 - attempt.tokens.generated,
        )
        assert attempt.cause is not None
        assert (attempt.cause.who, attempt.cause.reason) == ("'ends'", "it ends")
        assert [verdict.reason for _, verdict in result.recorded_failures] == ["it ends"]

    for slow in (False, True):
        run_virtual(program, slow, backend=loop)


def test_a_slow_editor_slows_the_model_down() -> None:
    async def program() -> int:
        backend = ScriptedBackend([f"{n}. " for n in range(100)])
        editor = Check(always("pass", after=1))
        editor.on_fail = "fix"
        async with start_session(backend=backend) as m:
            result = await m.stream("?", requirements=[editor], lane_buffer=2)
            await anyio.sleep(10.5)
            sent = backend.calls[0].deltas_sent
            await result.acomplete()
        return sent

    assert run_virtual(program, backend="trio") <= 10 + 2 * 4 + 2


def test_a_slow_reader_slows_the_model_down_through_the_editors() -> None:
    async def program() -> None:
        backend = ScriptedBackend([f"{n}. " for n in range(100)])
        rules = [MustNotMatch("xx", on_fail="filter"), MustNotMatch("yy")]
        async with start_session(backend=backend) as m:
            result = await m.stream("?", requirements=rules, lane_buffer=1, lookahead=1)
            read = 0
            async for _ in result.astream():
                read += 1
                await anyio.wait_all_tasks_blocked()
                assert backend.calls[0].deltas_sent <= read + 40
            assert read == 100

    for loop in LOOPS:
        run_virtual(program, backend=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_4_14_atext_is_the_released_text_as_it_is_released(loop: LoopName) -> None:
    text = "  Hello,\tworld.  How are\n\nyou?\n\n\n- x\n- y\n"

    async def program(chunking: str | None, hold_back: bool) -> tuple[str, str]:
        async with start_session(backend=ScriptedBackend([*text])) as m:
            result = await m.stream(
                "?", requirements=[MustNotMatch("zebra")], chunking=chunking, hold_back=hold_back
            )
            released = "".join([piece async for piece in result.atext()])
        return released, result.full_text

    for chunking in ("sentence", "word", "paragraph", None):
        for hold_back in (False, True):
            assert run_virtual(program, chunking, hold_back, backend=loop) == (text, text)


def test_4_14_atext_comes_when_the_chunk_is_released() -> None:
    async def program() -> list[tuple[str, float]]:
        async with start_session(
            backend=ScriptedBackend(["One.\n\n", Pause(1), "Two. ", Pause(1), "3"])
        ) as m:
            result = await m.stream("?")
            return [(piece, anyio.current_time()) async for piece in result.atext()]

    pieces = run_virtual(program, backend="trio")
    began = pieces[0][1]
    assert [(piece, at - began) for piece, at in pieces] == [
        ("One.", 0),
        ("\n\nTwo.", 1),
        (" 3", 2),
    ]


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_shown_before_a_fail_does_not_depend_on_whose_turn_was_first(
    loop: LoopName,
) -> None:
    text = "One. Two. A cat. Four."
    for seed in (None, *range(8)):
        for order in (1, -1):
            rules = [MustNotMatch("cat"), MustNotMatch("zebra"), MaxWords(40)][::order]
            for deltas in ([text], [*text]):
                ran = streamed(deltas, rules, loop, seed=seed)
                assert (ran.chunks, ran.result.completed) == (["One.", "Two."], False)
