"""The cutter knows where its chunks stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit import growth

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import ChunkingError
from mellea_sc.runtime.checks.chunks import Chunk, Cutter, Grouped
from mellea_sc.stdlib.chunking import RawChunker, SentenceChunker, WordChunker, resolve_chunking
from mellea_sc.testing.strategies import cuts


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


@pytest.mark.parametrize("name", ["sentence", "sentences", "word", "paragraph"])
@given(data=st.data(), window=st.sampled_from([0, 3]))
def test_white_space_before_a_chunk_is_known_early_and_stands_before_it(
    name: str, window: int, data: st.DataObject
) -> None:
    parts = st.sampled_from(["a", "Yes.", " ", "\n", "\n\n", "\u3000", "\u3002", "\u5b57"])
    text = "".join(data.draw(st.lists(parts, max_size=20)))
    cutter, whole = Cutter(resolve_chunking(name), window), Cutter(resolve_chunking(name), window)
    chunks: list[Chunk] = []
    early: list[str] = [""]  # for each chunk what was known to stand before it, and for the rest
    for delta in data.draw(cuts(text)):
        more = cutter.feed(delta)
        chunks += more
        early += [""] * len(more)
        if data.draw(st.booleans()):
            early[-1] += cutter.space()
    chunks += cutter.flush()
    assert chunks == [*whole.feed(text), *whole.flush()]
    rest = cutter.rest()
    assert rest == whole.rest()
    if rest is not None:
        chunks.append(rest)
    assert "".join(one.before + one.text for one in chunks) == text
    for one, known in zip(chunks, early, strict=False):
        assert one.before.startswith(known)
        assert text[one.start : one.end] == one.text
        begins = one.start
        assert one is rest or one.window == text[max(0, begins - window) : begins]


@pytest.mark.parametrize("name", ["sentence", "sentences", "word", "paragraph"])
@pytest.mark.parametrize("unit", ["\n", " ", "\u3000", "\u3000\n"])
@pytest.mark.parametrize("length", [1, 1000])
def test_4_16_endless_white_space_is_cut_in_linear_time(name: str, unit: str, length: int) -> None:
    def work(count: int) -> None:
        text = "Yes. " + unit * count
        cutter = Cutter(resolve_chunking(name))
        for at in range(0, len(text), length):
            cutter.feed(text[at : at + length])
            cutter.space()
        cutter.flush()

    assert growth(work, 10_000 if length == 1 else 50_000, 4, least=5e-3) < 7
