"""``"sentences"``: by a segmenter, and nevertheless independent of the cuts, with bounded work for a mark."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import sentencex
from hypothesis import example, given
from hypothesis import strategies as st
from kit import Check

from mellea_sc import InvalidOption, MissingExtra, start_session
from mellea_sc.stdlib.chunking import SentencesChunker, resolve_chunking
from mellea_sc.stdlib.chunking.sentences import AHEAD, CONTEXT
from mellea_sc.testing import ScriptedBackend
from mellea_sc.testing.strategies import cuts, texts

PARTS = (
    *(
        "Dr. ",
        "Mr. Fox",
        "e.g. ",
        "U.S. ",
        "J. R. ",
        "etc. ",
        "3.14",
        "1. ",
        "a) ",
        "no",
        "Yes",
        "The end",
    ),
    *(
        ". ",
        "! ",
        "?! ",
        '." ',
        ".) ",
        "...",
        " (",
        "\u201c",
        "\u201d ",
        "\u3002",
        "\u3002\u300d",
        "\u0964 ",
        ".",
        "; ",
        ", ",
    ),
    *(
        "\n",
        "\n\n",
        "\n- ",
        "\n2. ",
        " \n \n ",
        "* ",
        "\u5b57",
        "\u03c0\u03bf\u03cd; ",
        " " * 50,
        "x" * 60,
        "\u00ab",
        " \u00bb ",
    ),
)
PIECES = st.lists(st.sampled_from(PARTS), max_size=30).map("".join) | texts(20)


def chunks_of(strategy: SentencesChunker, deltas: Sequence[str]) -> list[str]:
    chunks = [chunk for delta in deltas for chunk in strategy.feed(delta)]
    return [*chunks, *strategy.flush()]


def cases(name: str) -> list[tuple[str, str, list[str]]]:
    lines = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    split = [
        line.replace("\\n", "\n").split(" | ", 2) for line in lines if line[:1] not in ("", "#")
    ]
    return [(language, text.replace("|", ""), text.split("|")) for language, _, text in split]


@pytest.mark.parametrize(
    ("name", "english", "others"),
    [("sentences.txt", (62, 68), (28, 30)), ("sentences_held_out.txt", (38, 40), (8, 10))],
)
def test_so_many_texts_are_cut_as_a_reader_would(
    name: str, english: tuple[int, int], others: tuple[int, int]
) -> None:
    """The numbers of the guide."""
    right = {
        (number, language == "en"): chunks_of(SentencesChunker(language), [text])
        == [sentence.strip() for sentence in expected]
        for number, (language, text, expected) in enumerate(cases(name))
    }
    for is_english, (good, all_of_them) in {True: english, False: others}.items():
        found = [one for (_, kind), one in right.items() if kind == is_english]
        assert len(found) == all_of_them
        assert sum(found) >= good


@given(data=st.data(), text=PIECES, language=st.sampled_from(["en", "de", "zh", "xx"]))
def test_the_sentences_depend_on_the_text_alone_wherever_it_is_cut(
    data: st.DataObject, text: str, language: str
) -> None:
    whole = chunks_of(SentencesChunker(language), [text])
    assert chunks_of(SentencesChunker(language), data.draw(cuts(text))) == whole
    assert chunks_of(SentencesChunker(language), [*text]) == whole


@given(text=PIECES, more=PIECES)
def test_a_sentence_once_given_stays_whatever_comes_after(text: str, more: str) -> None:
    strategy = SentencesChunker()
    early = [*strategy.feed(text)]
    assert chunks_of(SentencesChunker(), [text + more])[: len(early)] == early


@given(text=PIECES)
@example(text="\n\n1. ")
def test_sentences_are_pieces_of_the_text_and_only_white_space_is_between(text: str) -> None:
    rest = text
    for chunk in chunks_of(SentencesChunker(), [text]):
        between, found, rest = rest.partition(chunk)
        assert found.strip() == found != ""
        assert not between.strip()
    assert not rest.strip()


def test_a_sentence_is_given_when_the_word_after_it_is_known() -> None:
    strategy = SentencesChunker()
    steps = [("It is late.", 0), (" We", 0), (" ", 1), ("ask Dr. Osei ", 0), ("now.\n\n", 1)]
    for delta, count in [*steps, ("\u597d\u3002", 0), ("\u4f60", 1), (". " + "x" * AHEAD, 1)]:
        assert len(strategy.feed(delta)) == count, delta
    assert len(strategy.flush()) == 1


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Osei came at 3.14 p.m. on Monday. She left.", 2),
        ("E.g. this. The U.S. Senate met.", 2),
        ("1. Wash it. 2. Dry it.", 2),
        ("- one\n- two\n- three", 3),
        ("A title\n\nA text", 2),
        ("a\nb\nc", 1),
        ("\u597d\u3002\u4e0d\uff01\uff1f\u300d\u3001\u55ef", 2),
        ("No.", 1),
        ("", 0),
        (" \n\n ", 0),
    ],
)
def test_what_is_no_end_of_a_sentence_ends_none(text: str, sentences: int) -> None:
    assert len(chunks_of(SentencesChunker(), [text])) == sentences


@pytest.mark.parametrize(
    "unit",
    ["Dr. ", "word ", "a. ", "1. ", "\u5b57\u3002", '."', ".", "\n", "\n- a", "\u3002\u300d"],
)
@pytest.mark.parametrize("size", [3, 10_000])
def test_each_mark_is_asked_about_once_and_with_a_bounded_text(
    unit: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def segment(language: str, text: str) -> list[str]:
        asked.append(len(text))
        return sentencex.segment(language, text)

    strategy = SentencesChunker()
    monkeypatch.setattr(strategy, "_segment", segment)
    text = unit * (20_000 // len(unit))
    most = 0
    for at in range(0, len(text), size):
        strategy.feed(text[at : at + size])
        most = max(most, len(strategy._near))
    strategy.flush()
    assert len(asked) <= text.count(".")
    assert max(asked, default=0) <= CONTEXT + AHEAD + 40
    assert most <= CONTEXT + AHEAD + 200


@pytest.mark.parametrize(
    "unit", ["Dr. ", "a. ", "\u5b57\u3002", ".", "\n", "word", "?!", "\u3002\u300d"]
)
def test_a_long_text_is_cut_in_one_pass(unit: str) -> None:
    text = unit * 40_000
    whole = chunks_of(SentencesChunker(), [text])
    assert "".join("".join(whole).split()) == "".join(text.split())


def test_a_strategy_is_empty_after_its_flush_and_a_copy_is_its_own() -> None:
    mine = SentencesChunker("de")
    copied = resolve_chunking(mine)
    assert isinstance(copied, SentencesChunker)
    assert copied.language == "de"
    assert [*copied.feed("Eins. Zwei. Drei")] == ["Eins."]
    assert [*mine.flush()] == []
    assert [*copied.flush()] == ["Zwei.", "Drei"]
    assert [*copied.flush()] == []
    assert chunks_of(copied, ["Am 3. Mai. Ja."]) == chunks_of(
        SentencesChunker("de"), ["Am 3. Mai. Ja."]
    )


@pytest.mark.parametrize("wrong", ["", None, 3, ["en"]])
def test_a_wrong_language_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidOption, match="language"):
        SentencesChunker(wrong)  # type: ignore[arg-type]


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sentencex", None)
    with pytest.raises(MissingExtra, match=r"mellea_sc\[sentences\]"):
        resolve_chunking("sentences")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_run_and_a_requirement_may_use_it_by_name() -> None:
    text = "Dr. Osei came. She left, e.g. by bus. Bye."
    listening = Check(chunking="sentences")
    async with (
        start_session(backend=ScriptedBackend(list(text))) as m,
        m.stream("go", requirements=[listening], chunking="sentences") as result,
    ):
        chunks = [chunk async for chunk in result.astream()]
    assert chunks == listening.seen.started == ["Dr. Osei came.", "She left, e.g. by bus.", "Bye."]
