"""The cutter knows where its chunks stand; a tape has one reader and forgets what was read."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import ChunkingError, StreamConsumed
from mellea_sc.runtime.checks.cutter import Cutter
from mellea_sc.stdlib.chunking import RawChunker, SentenceChunker, WordChunker
from mellea_sc.stdlib.stream.readers import Tape

pytestmark = pytest.mark.anyio


class Told(ChunkingStrategy):
    """Gives what it was told to, whatever it is fed."""

    def __init__(self, *chunks: Sequence[str]) -> None:
        self.chunks = [*chunks]

    def feed(self, delta: str) -> Sequence[str]:
        return self.chunks.pop(0)

    def flush(self) -> Sequence[str]:
        return self.chunks.pop(0)


def test_chunks_stand_where_they_are_in_the_text() -> None:
    text = "  One.  Two two. \n One."
    cutter = Cutter(SentenceChunker())
    chunks = [chunk for at in range(0, len(text), 3) for chunk in cutter.feed(text[at : at + 3])]
    chunks += cutter.flush()
    assert [chunk.text for chunk in chunks] == ["One.", "Two two.", "One."]
    assert [text[chunk.start : chunk.end] for chunk in chunks] == [chunk.text for chunk in chunks]
    assert chunks[0].start < chunks[1].start < chunks[2].start


def test_equal_chunks_of_one_delta_stand_one_after_the_other() -> None:
    cutter = Cutter(Told(["a", "a"]))
    assert [(chunk.start, chunk.end) for chunk in cutter.feed("a b a")] == [(0, 1), (4, 5)]


@pytest.mark.parametrize("wrong", ["not there", "One.", "w. Two"])
def test_a_chunk_that_does_not_stand_in_the_text_after_the_last_one_is_an_error(wrong: str) -> None:
    cutter = Cutter(Told(["One."], [wrong]))
    assert cutter.feed("One. T")[0].end == 4
    with pytest.raises(ChunkingError, match="Told"):
        cutter.feed("wo. Three.")


def test_a_flushed_fragment_that_is_not_there_is_an_error_too() -> None:
    cutter = Cutter(Told([], ["nowhere"]))
    cutter.feed("One.")
    with pytest.raises(ChunkingError):
        cutter.flush()


class Shouted(WordChunker):
    """A user's own: it gives away some of the words alone."""

    def feed(self, delta: str) -> Sequence[str]:
        return [word for word in super().feed(delta) if word.isupper()]


def test_a_chunker_whose_feed_was_overridden_is_asked_by_it() -> None:
    cutter = Cutter(Shouted())
    chunks = [*cutter.feed("so LOUD it "), *cutter.feed("IS "), *cutter.flush()]
    assert [(chunk.text, chunk.before) for chunk in chunks] == [("LOUD", "so "), ("IS", " it ")]


def test_chunks_of_white_space_alone_are_none_and_it_stands_before_the_next() -> None:
    cutter = Cutter(WordChunker())
    chunks = [chunk for delta in (" ", " \n", "a", "\n\n", "b ") for chunk in cutter.feed(delta)]
    assert [(one.text, one.before, one.start) for one in chunks] == [
        ("a", "  \n", 3),
        ("b", "\n\n", 6),
    ]
    assert (rest := cutter.rest()) is not None
    assert rest.before == " "


@pytest.mark.parametrize("strategy", [WordChunker, RawChunker, SentenceChunker])
def test_what_a_cutter_keeps_does_not_grow_with_the_text(
    strategy: type[ChunkingStrategy],
) -> None:
    cutter = Cutter(strategy())
    most = 0
    for _ in range(1000):
        cutter.feed("Some. ")
        most = max(most, sum(map(len, cutter._pending)))
    assert most <= 12


async def test_a_tape_is_read_once_and_what_is_there_needs_no_waiting() -> None:
    read: list[int] = []
    tape: Tape[str] = Tape("numbers", on_read=lambda: read.append(tape.taken))
    for n in range(3):
        tape.write(str(n))
    unused = tape.reader(str)
    reader = tape.reader(str)
    assert [await anext(reader), await anext(reader)] == ["0", "1"]
    assert read == [1, 2]
    with pytest.raises(StreamConsumed, match="numbers"):
        await anext(unused)
    tape.end()
    assert [n async for n in reader] == ["2"]
    assert [n async for n in reader] == []
    with pytest.raises(StreamConsumed):
        await anext(tape.reader(str))


async def test_a_reader_of_a_tape_wakes_for_what_is_written_and_for_the_end() -> None:
    tape: Tape[str] = Tape("numbers")
    got: list[str] = []

    async def read() -> None:
        async for n in tape.reader(str):
            got.append(n)  # noqa: PERF401 - seen from outside while it goes on

    async with anyio.create_task_group() as tg:
        tg.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        for n in range(3):
            tape.write(str(n))
            await anyio.wait_all_tasks_blocked()
            assert got == [*"012"[: n + 1]]
        tape.end()
    assert got == [*"012"]


async def test_a_cancelled_reader_of_a_tape_loses_nothing_and_may_go_on() -> None:
    tape: Tape[str] = Tape("numbers")
    reader = tape.reader(str)
    with anyio.move_on_after(1) as scope:
        await anext(reader)
    assert scope.cancelled_caught
    tape.write("1")
    assert await anext(reader) == "1"


async def test_what_the_end_of_a_tape_raises_its_reader_gets_once() -> None:
    errors = [LookupError("told")]

    def tell() -> Exception | None:
        return errors.pop() if errors else None

    tape: Tape[str] = Tape("numbers", error=tell)
    tape.write("1")
    tape.end()
    reader = tape.reader(str)
    assert await anext(reader) == "1"
    with pytest.raises(LookupError):
        await anext(reader)
    assert [n async for n in reader] == []


async def test_what_is_empty_in_an_item_is_passed_over() -> None:
    tape: Tape[str] = Tape("words")
    for word in ("a ", " ", "b"):
        tape.write(word)
    tape.end()
    assert [word async for word in tape.reader(str.strip)] == ["a", "b"]
