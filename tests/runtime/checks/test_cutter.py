"""The cutter knows where its chunks stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import ChunkingError
from mellea_sc.runtime.checks.chunks import Cutter, Grouped
from mellea_sc.stdlib.chunking import RawChunker, SentenceChunker, WordChunker


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


def test_a_window_is_never_longer_than_it_should_be() -> None:
    cutter = Cutter(WordChunker(), window=1)
    chunks = [chunk for character in "a b c " for chunk in cutter.feed(character)]
    assert [(chunk.text, chunk.window) for chunk in chunks] == [("a", ""), ("b", " "), ("c", " ")]


@pytest.mark.parametrize("strategy", [RawChunker, WordChunker])
def test_chunks_of_a_group_may_have_the_white_space_that_those_of_its_strategy_have(
    strategy: Callable[[], ChunkingStrategy],
) -> None:
    cutter = Cutter(Grouped(strategy(), 2))
    cutter.feed(" ")
    assert cutter.space() == (" " if strategy is WordChunker else "")


@pytest.mark.parametrize(
    "cut", [lambda text: [text], lambda text: [*text]], ids=["whole", "single"]
)
def test_groups_stand_where_they_are_in_the_text(cut: Callable[[str], list[str]]) -> None:
    text = " a  b c d\ne f g"
    cutter = Cutter(Grouped(WordChunker(), 2))
    chunks = [chunk for delta in cut(text) for chunk in cutter.feed(delta)]
    chunks += cutter.flush()
    assert [chunk.text for chunk in chunks] == ["a  b", "c d", "e f", "g"]
    assert [text[chunk.start : chunk.end] for chunk in chunks] == [chunk.text for chunk in chunks]


def test_what_no_chunk_holds_is_told_as_it_came() -> None:
    cutter = Cutter(WordChunker())
    for delta in ("a", " ", "\n"):
        cutter.feed(delta)
    cutter.flush()
    rest = cutter.rest()
    assert rest is not None
    assert (rest.text, rest.before, rest.start, rest.end) == ("", " \n", 3, 3)
