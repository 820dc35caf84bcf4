"""4.11: the chunks depend on the text alone, and the work per delta does not grow with it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import InvalidOption
from mellea_sc.stdlib.chunking import (
    ParagraphChunker,
    RawChunker,
    SentenceChunker,
    WordChunker,
    resolve_chunking,
)
from mellea_sc.testing.strategies import cuts, texts

NAMED = {"sentence": SentenceChunker, "word": WordChunker, "paragraph": ParagraphChunker}
named = pytest.mark.parametrize("name", NAMED)


def chunks_of(strategy: ChunkingStrategy, deltas: Sequence[str]) -> list[str]:
    chunks = [chunk for delta in deltas for chunk in strategy.feed(delta)]
    return [*chunks, *strategy.flush()]


# --- what the chunks of a whole text are, said another way -------------------------------------


def sentences(text: str) -> list[str]:
    found: list[str] = []
    start = at = 0
    while at < len(text):
        if text[at] in ".!?":
            end = at + 1
            if text[end : end + 1] and text[end] in "\"'\u201d\u2019)":
                end += 1
            if text[end : end + 1].isspace():
                found.append(text[start:end])
                start = at = end
                continue
        at += 1
    return [chunk.strip() for chunk in [*found, text[start:]] if chunk.strip()]


def words(text: str) -> list[str]:
    return text.split()


def paragraphs(text: str) -> list[str]:
    return [chunk.strip() for chunk in re.split(r"\n\n+", text) if chunk.strip()]


REFERENCE: dict[str, Callable[[str], list[str]]] = {
    "sentence": sentences,
    "word": words,
    "paragraph": paragraphs,
}


@named
@given(text=texts())
@example(text="A.")
@example(text="A.\u201d\u201d B")
@example(text='He said "Go." Then (he went.) Why?! \u2026 Well...  ')
@example(text="\n\n\n\nA\n\n\n\n\nB\n \nC\n\n")
@example(text=" \u00a0A.\x1cB!\u2003C ")
def test_the_chunks_of_a_text_are_what_the_promise_says(name: str, text: str) -> None:
    assert chunks_of(resolve_chunking(name), [text]) == REFERENCE[name](text)


@named
@given(data=st.data())
def test_the_chunks_depend_on_the_text_alone_wherever_it_is_cut(
    name: str, data: st.DataObject
) -> None:
    text = data.draw(texts())
    whole = chunks_of(resolve_chunking(name), [text])
    assert chunks_of(resolve_chunking(name), data.draw(cuts(text))) == whole
    assert chunks_of(resolve_chunking(name), [*text]) == whole


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sentence", 'A." B!) \u201cC?\u201d D.'),
        ("word", " a  b\tc "),
        ("paragraph", "\na\n\n\nb\n\n"),
    ],
)
def test_a_short_text_has_the_same_chunks_however_it_is_cut(name: str, text: str) -> None:
    whole = REFERENCE[name](text)
    for inner in itertools.product((True, False), repeat=len(text) - 1):
        deltas = [""]
        for letter, cut in zip(text, (*inner, False), strict=True):
            deltas[-1] += letter
            if cut:
                deltas.append("")
        assert chunks_of(resolve_chunking(name), deltas) == whole


@named
@given(text=texts())
def test_chunks_are_pieces_of_the_text_in_order_and_only_white_space_is_between(
    name: str, text: str
) -> None:
    rest = text
    for chunk in chunks_of(resolve_chunking(name), [text]):
        assert chunk
        assert chunk == chunk.strip()
        between, found, rest = rest.partition(chunk)
        assert found
        assert not between.strip()
    assert not rest.strip()


@given(data=st.data())
def test_raw_chunks_are_the_deltas_and_joined_the_text(data: st.DataObject) -> None:
    text = data.draw(texts())
    deltas = data.draw(cuts(text))
    chunks = chunks_of(resolve_chunking(None), deltas)
    assert chunks == [delta for delta in deltas if delta]
    assert "".join(chunks) == text


@named
@given(text=texts(), more=texts())
def test_a_chunk_once_given_stays_whatever_comes_after(name: str, text: str, more: str) -> None:
    strategy = resolve_chunking(name)
    early = [*strategy.feed(text)]
    assert chunks_of(resolve_chunking(name), [text + more])[: len(early)] == early


def test_a_chunk_is_given_as_soon_as_its_end_is_certain() -> None:
    for name, steps in {
        "sentence": [("One", []), (".", []), (" ", ["One."]), ('T."', []), ("\n", ['T."'])],
        "word": [("on", []), ("e", []), (" ", ["one"]), (" two", []), ("\n", ["two"])],
        "paragraph": [("a\n", []), ("\n", ["a"]), ("\n\n", []), ("b\n\nc\n\nd", ["b", "c"])],
    }.items():
        strategy = resolve_chunking(name)
        for delta, chunks in steps:
            assert [*strategy.feed(delta)] == chunks


# --- work per delta, counted -------------------------------------------------------------------


@named
@pytest.mark.parametrize("boundary_every", [1, 10, 1_000_000])
def test_the_work_per_delta_does_not_grow_with_the_text(
    name: str, boundary_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Characters that are searched, for the first and the last of many deltas."""
    handled = 0

    class Searching:
        def __init__(self, pattern: re.Pattern[str]) -> None:
            self.pattern = pattern

        def search(self, text: str, start: int = 0) -> re.Match[str] | None:
            nonlocal handled
            handled += len(text) - start
            return self.pattern.search(text, start)

    strategy = resolve_chunking(name)
    monkeypatch.setattr(strategy, "_end", Searching(strategy._end), raising=True)  # type: ignore[attr-defined]
    end = {"sentence": "x. ", "word": "xx ", "paragraph": "x\n\n"}[name]
    totals: list[int] = []
    for round_ in range(4):
        handled = 0
        for n in range(round_ * 2000, (round_ + 1) * 2000):
            strategy.feed(end if n % boundary_every == 0 else "xxx")
        totals.append(handled)
    # at most: the delta with the tail before it, and once more what stands after a boundary
    assert max(totals) <= 2000 * (3 + 2) + 2000 * 2
    assert totals[-1] <= totals[0] * 1.1


@named
def test_what_is_kept_does_not_grow_with_the_chunks_already_given(name: str) -> None:
    strategy = resolve_chunking(name)
    end = {"sentence": "x. ", "word": "xx ", "paragraph": "x\n\n"}[name]
    for _ in range(1000):
        strategy.feed(end)
        assert sum(map(len, strategy._pending)) <= 3  # type: ignore[attr-defined]


# --- names -----------------------------------------------------------------------------------------


def test_a_name_gives_a_fresh_strategy_each_time() -> None:
    for name, kind in {**NAMED, None: RawChunker}.items():
        first, second = resolve_chunking(name), resolve_chunking(name)
        assert type(first) is type(second) is kind
        assert first is not second


@named
def test_a_strategy_that_is_given_is_copied_and_never_fed(name: str) -> None:
    mine = NAMED[name]()
    copied = resolve_chunking(mine)
    copied.feed("One. Two")
    assert copied is not mine
    assert [*mine.flush()] == []
    assert [*copied.flush()] != []


@pytest.mark.parametrize("wrong", ["sentences", "", "Sentence", 3, SentenceChunker, ["word"], 2.5])
def test_an_unknown_chunking_is_an_error_that_says_what_there_is(wrong: object) -> None:
    with pytest.raises(InvalidOption, match=r"'sentence', 'word', 'paragraph', None"):
        resolve_chunking(wrong)  # type: ignore[arg-type]


@named
def test_a_strategy_is_empty_after_its_flush(name: str) -> None:
    strategy = resolve_chunking(name)
    strategy.feed("a trailing fragment")
    assert len(strategy.flush()) == 1
    assert [*strategy.flush()] == []
    assert [*strategy.feed("")] == []
