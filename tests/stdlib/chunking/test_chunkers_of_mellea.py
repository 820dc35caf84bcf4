"""Chunking strategies that were written for Mellea: `split(text)`, and perhaps `flush(text)`.

The chunks and the errors that are expected are Mellea's own, 0.7 and 0.8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit import Check, read_chunks, session

from mellea_sc.core.errors import ChunkingError, InvalidOption
from mellea_sc.stdlib import ChunkingStrategy, SentenceChunking, WordChunking
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.testing.strategies import cuts


class Lines(ChunkingStrategy):
    def split(self, text: str) -> list[str]:
        return [line for line in text.split("\n")[:-1] if line]


class WholeLines(Lines):
    def flush(self, text: str) -> list[str]:  # type: ignore[override]
        rest = text.rsplit("\n", 1)[-1]
        return [rest] if rest else []


class NoLines(ChunkingStrategy):
    def split(self, text: str) -> list[str]:
        return text.split("\n")[:-1]


class Shouted(ChunkingStrategy):
    def split(self, text: str) -> list[str]:
        return [line.upper() for line in text.split("\n")[:-1]]


class Questions(ChunkingStrategy):
    def split(self, accumulated_text: str) -> list[str]:
        return [
            found.group().strip() for found in re.finditer(r"[^.?]+[.?](?=\s)", accumulated_text)
        ]

    def flush(self, accumulated_text: str) -> list[str]:  # type: ignore[override]
        return [accumulated_text.strip()] if accumulated_text.strip() else []


class Blocks(ChunkingStrategy):
    def __init__(self, size: int = 5) -> None:
        self.size = size

    def split(self, text: str) -> list[str]:
        return [text[at : at + self.size] for at in range(0, len(text) - self.size + 1, self.size)]

    def flush(self, text: str) -> list[str]:  # type: ignore[override]
        return [text] if text else []


class LongSentences(SentenceChunking):
    def split(self, text: str) -> Sequence[str]:
        return [sentence for sentence in super().split(text) if len(sentence) > 4]


class NoFragment(LongSentences):
    def flush(self, text: str | None = None) -> Sequence[str]:
        assert text is not None
        return [chunk for chunk in super().flush(text) if chunk.endswith(".")]


class TwoWords(WordChunking):
    def split(self, text: str) -> Sequence[str]:
        return list(map(" ".join, zip(*[iter(super().split(text))] * 2, strict=False)))


PROSE = "  One. Two three? Is it\n\nYes. no"
CHUNKS: list[tuple[type[ChunkingStrategy], str, list[str]]] = [
    (Lines, "One\nTwo\n\nThree", ["One", "Two"]),
    (WholeLines, "One\nTwo\n\nThree", ["One", "Two", "Three"]),
    (Questions, PROSE, ["One.", "Two three?", "Is it\n\nYes.", "no"]),
    (Blocks, "One Two", ["One T", "wo"]),
    (LongSentences, PROSE, ["Two three?", "Is it\n\nYes.", "no"]),
    (NoFragment, PROSE, ["Two three?", "Is it\n\nYes."]),
    (TwoWords, "One Two Three Four", ["One Two", "Four"]),
    (TwoWords, "One Two Three Four ", ["One Two", "Three Four"]),
]


def chunks_of(strategy: ChunkingStrategy, deltas: Sequence[str]) -> list[str]:
    strategy = resolve_chunking(strategy)
    chunks = [chunk for delta in deltas for chunk in strategy.feed(delta)]
    return [*chunks, *strategy.flush()]


@given(st.data())
@pytest.mark.parametrize(("kind", "text", "chunks"), CHUNKS)
def test_4_11_a_chunker_of_mellea_gives_the_same_chunks_wherever_the_text_is_cut(
    kind: type[ChunkingStrategy], text: str, chunks: list[str], data: st.DataObject
) -> None:
    assert chunks_of(kind(), data.draw(cuts(text))) == chunks


@pytest.mark.anyio
@pytest.mark.parametrize(("kind", "text", "chunks"), CHUNKS)
async def test_4_11_a_chunker_of_mellea_cuts_a_stream_and_the_text_of_a_requirement(
    kind: type[ChunkingStrategy], text: str, chunks: list[str]
) -> None:
    shown, own, original = Check(), Check(chunking=kind()), kind()
    m, _ = session(*text)
    async with m, m.stream("?", requirements=[shown, own], chunking=original) as result:
        assert await read_chunks(result) == chunks
    assert shown.seen.started == own.seen.started == chunks
    assert result.full_text == text
    assert chunks_of(original, [text]) == chunks  # the run had a copy


@pytest.mark.parametrize("kind", [NoLines, Shouted])
def test_a_chunk_that_mellea_refuses_is_refused_by_a_typed_error(
    kind: type[ChunkingStrategy],
) -> None:
    with pytest.raises(ChunkingError, match=kind.__name__):
        chunks_of(kind(), ["One\n", "Two\n", "\n"])


def test_a_split_that_returns_no_list_is_refused() -> None:
    class Odd(Lines):
        def split(self, text: str) -> str:  # type: ignore[override]
            return text

    with pytest.raises(ChunkingError, match=r"split\(\) of Odd must return a list of chunks, not"):
        chunks_of(Odd(), ["One\n"])  # pyright: ignore[reportAbstractUsage]


def test_half_of_each_kind_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"Both must have either .* or split\(text\)"):

        class Both(ChunkingStrategy):  # pyright: ignore[reportUnusedClass]
            def split(self, text: str) -> list[str]:
                return [text]

            def flush(self) -> list[str]:
                return []


def test_a_chunker_of_ours_may_have_a_method_called_split() -> None:
    class Ours(ChunkingStrategy):
        def split(self) -> None: ...

        def feed(self, delta: str) -> list[str]:
            return [delta]

        def flush(self) -> list[str]:
            return []

    class Deltas(Ours):
        def flush(self) -> list[str]:
            return ["!"]

    assert chunks_of(Deltas(), ["One", "Two"]) == ["One", "Two", "!"]


def test_a_text_is_split_and_flushed_at_once_as_in_mellea() -> None:
    sentences = SentenceChunking()
    assert sentences.split(PROSE) == ["One.", "Two three?", "Is it\n\nYes."]
    assert sentences.flush(PROSE) == ["no"]
    assert WholeLines().flush("One\nTwo") == ["Two"]  # type: ignore[call-arg]
