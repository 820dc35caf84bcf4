"""4.11: the chunks depend on the text alone, and the work per delta does not grow with it."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import InvalidOption
from mellea_sc.stdlib import chunking
from mellea_sc.stdlib.chunking import (
    ParagraphChunker,
    RawChunker,
    SentenceChunker,
    WordChunker,
    resolve_chunking,
)
from mellea_sc.stdlib.chunking import words as words_module
from mellea_sc.stdlib.chunking.sentences import CLOSERS
from mellea_sc.stdlib.chunking.sentences import STOPS as STOPS_OF_OURS
from mellea_sc.testing.strategies import cuts, texts

NAMED = {"sentence": SentenceChunker, "word": WordChunker, "paragraph": ParagraphChunker}
named = pytest.mark.parametrize("name", NAMED)


def chunks_of(strategy: ChunkingStrategy, deltas: Sequence[str]) -> list[str]:
    chunks = [chunk for delta in deltas for chunk in strategy.feed(delta)]
    return [*chunks, *strategy.flush()]


# --- what the chunks of a whole text are, said another way -------------------------------------


STOPS = set("\u3002\uff01\uff1f\uff61\u0964\u0965\u061f\u06d4\u1362\u0589\u104b\u17d4\u2047\u203c")
WIDTHLESS = set("\u200d\u200e\u200f\u061c\ufe0e\ufe0f")


def closes(char: str) -> bool:
    return unicodedata.category(char) in ("Pe", "Pf") or char in {*"\"'\uff02\uff07", *WIDTHLESS}


def sentence_ends(text: str) -> Iterator[int]:
    at = 0
    while at < len(text):
        end = at + 1
        if text[at] in STOPS:
            while end < len(text) and (
                text[end] in STOPS
                or text[end] in "!?\u2026"
                or closes(text[end])
                or (text[end] in "\u201c\u2018\u00ab" and not text[end + 1 : end + 2].strip())
            ):
                end += 1
            if end < len(text):
                yield end
            at = end
            continue
        is_greek = [
            "GREEK" in unicodedata.name(char, "") and char.isalpha()
            for char in text[max(0, at - 2) : at]
        ]
        if text[at] in ".!?" or (text[at] == ";" and is_greek == [True, True]):
            also = "\"'\u201d\u2019)" + ("\u00bb" if text[at] == ";" else "")
            if text[end : end + 1] and text[end] in also:
                end += 1
            if text[end : end + 1].isspace():
                yield end
                at = end
                continue
        at += 1


def sentences(text: str) -> list[str]:
    ends = [0, *sentence_ends(text), len(text)]
    chunks = [text[a:b].strip() for a, b in itertools.pairwise(ends)]
    return [chunk for chunk in chunks if chunk]


UNSPACED = ("CJK UNIFIED", "HIRAGANA LETTER", "THAI CHARACTER", "MYANMAR LETTER", "KHMER LETTER")


def kind_of(char: str) -> str:
    """Of the first character of a grapheme."""
    name, category = unicodedata.name(char, ""), unicodedata.category(char)
    is_wide = "\u3001" <= char <= "\u303f" or "\uff01" <= char <= "\uff65" or char in STOPS
    if category == "Lo" and name.startswith(UNSPACED):
        return "one"
    if name.startswith("KATAKANA LETTER") or char == "\u30fc":
        return "kana"
    if category in ("Ps", "Pi"):
        return "opens" if is_wide else "opens a little"
    if char.isalnum():
        return "letter"
    return "wide" if is_wide else "mark"


def words_in(run: str) -> Iterator[str]:
    """Of what stands between white space."""
    word, core, closed = "", "", False
    for grapheme in regex.findall(r"\X", run):
        kind = kind_of(grapheme[0])
        begins = bool(core) and (
            kind in ("one", "opens")
            or (kind == "kana" and (core != "kana" or closed))
            or (kind == "letter" and (core != "letter" or closed))
            or (kind == "opens a little" and (core != "letter" or closed))
        )
        if begins:
            yield word
            word, core, closed = "", "", False
        word += grapheme
        if all(unicodedata.category(char) == "Cf" for char in grapheme):
            continue  # a word goes on over it: UAX #29, WB4
        if kind in ("one", "kana", "letter"):
            core = core or kind
            closed = closed or kind == "one"
        elif core and (kind == "wide" or core == "kana"):
            closed = True
    if word:
        yield word


def words(text: str) -> list[str]:
    return [word for run in text.split() for word in words_in(run)]


def paragraphs(text: str) -> list[str]:
    return [chunk.strip() for chunk in re.split(r"\n\n+", text) if chunk.strip()]


REFERENCE: dict[str, Callable[[str], list[str]]] = {
    "sentence": sentences,
    "word": words,
    "paragraph": paragraphs,
}


SCRIPTS = (
    *(
        "\u6211",
        "\u8bf4",
        "\u597d",
        "\u3042",
        "\u306e",
        "\u30ab",
        "\u30bf",
        "\u30fc",
        "\ud55c\uad6d",
        "OK",
        "a",
        "3.14",
    ),
    *(
        "\u0e19\u0e49",
        "\u0e01",
        "\u0e33",
        "\u1780\u17d2\u1780",
        "\u1000\u1039\u1000",
        "\u0928\u092e\u0938\u094d\u0924\u0947",
        "\u0633\u0644\u0627\u0645",
    ),
    *(
        "\u03c0\u03bf\u03c5;",
        "\u03c0\u03cc\u03c3\u03bf;\u00bb",
        "\u03b1;",
        "e\u0301",
        "\U0001f469\u200d\U0001f52c",
        "\u203c\ufe0f",
    ),
    *STOPS,
    *"\u300c\u300d\u300e\u300f\uff08\uff09\u300a\u300b\u201c\u201d\u2018\u2019\u00ab\u00bb\uff0c\u3001\uff1a\u2026()[]\"'*-_!?.,; \n",
    *("! ", '."', ". ", "\u200f", "\u3000"),
)


def many_scripts(max_pieces: int = 30) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(SCRIPTS), max_size=max_pieces).map("".join)


@named
@given(text=texts() | many_scripts())
@example(text="A.")
@example(text="A.\u201d\u201d B")
@example(text='He said "Go." Then (he went.) Why?! \u2026 Well...  ')
@example(text="\n\n\n\nA\n\n\n\n\nB\n \nC\n\n")
@example(text=" \u00a0A.\x1cB!\u2003C ")
@example(text="\ud55c\uad6d(\u300c")
@example(text="\u0e33\u201c\u6211\u200f\u0e33")
def test_the_chunks_of_a_text_are_what_the_promise_says(name: str, text: str) -> None:
    if name == "word" and not set(text) <= KNOWN_TO_THE_REFERENCE:
        text = "".join(char for char in text if char in KNOWN_TO_THE_REFERENCE)
    assert chunks_of(resolve_chunking(name), [text]) == REFERENCE[name](text)


KNOWN_TO_THE_REFERENCE = set("".join(SCRIPTS)) | {chr(code) for code in range(0x21, 0x250)} - {
    "\xad"
}


@named
@given(data=st.data())
def test_the_chunks_depend_on_the_text_alone_wherever_it_is_cut(
    name: str, data: st.DataObject
) -> None:
    text = data.draw(texts() | many_scripts())
    whole = chunks_of(resolve_chunking(name), [text])
    assert chunks_of(resolve_chunking(name), data.draw(cuts(text))) == whole
    assert chunks_of(resolve_chunking(name), [*text]) == whole


def lines_of(name: str) -> list[list[str]]:
    lines = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    return [
        line.replace("\\n", "\n").replace("\\u037e", "\u037e").split(" | ")
        for line in lines
        if line and not line.startswith("#")
    ]


@pytest.mark.parametrize(("language", "marked"), lines_of("languages.txt"))
def test_texts_of_many_languages_are_cut_after_their_sentences(language: str, marked: str) -> None:
    expected = [sentence.strip() for sentence in marked.split("|")]
    text = marked.replace("|", "")
    for size in (1, 2, 3, len(text)):
        deltas = [text[at : at + size] for at in range(0, len(text), size)]
        assert chunks_of(resolve_chunking("sentence"), deltas) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sentence", 'A." B!) \u201cC?\u201d D.'),
        ("sentence", "\u300c\u597d\uff01\uff1f\u300d\u300f!\u4ed6\u3002\u3002 A\u3002"),
        ("word", "OK\u3002\u300c\u4eca\u5929\u300da\u30ab\u30bf\uff0c(\u6211) \u597d"),
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
@given(text=texts() | many_scripts())
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
@given(text=texts() | many_scripts(), more=texts() | many_scripts())
def test_a_chunk_once_given_stays_whatever_comes_after(name: str, text: str, more: str) -> None:
    strategy = resolve_chunking(name)
    early = [*strategy.feed(text)]
    assert chunks_of(resolve_chunking(name), [text + more])[: len(early)] == early


def test_a_chunk_is_given_as_soon_as_its_end_is_certain() -> None:
    for name, steps in {
        "sentence": [
            *[("One", []), (".", []), (" ", ["One."]), ('T."', []), ("\n", ['T."'])],
            *[
                ("\u597d\u3002", []),
                ("\u300d", []),
                ("\u4ed6", ["\u597d\u3002\u300d"]),
                ("\uff01", []),
                (" ", ["\u4ed6\uff01"]),
            ],
        ],
        "word": [
            *[("on", []), ("e", []), (" ", ["one"]), (" two", []), ("\n", ["two"])],
            *[
                ("\u6211", []),
                ("\u8bf4", ["\u6211"]),
                ("\u3002", []),
                ("OK", ["\u8bf4\u3002"]),
                ("\u597d", ["OK"]),
            ],
        ],
        "paragraph": [("a\n", []), ("\n", ["a"]), ("\n\n", []), ("b\n\nc\n\nd", ["b", "c"])],
    }.items():
        strategy = resolve_chunking(name)
        delta: str
        chunks: list[str]
        for delta, chunks in steps:
            assert [*strategy.feed(delta)] == chunks


# --- work per delta, counted -------------------------------------------------------------------


class Counting:
    """A pattern that counts the characters that it is handed."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.handled = 0

    def search(self, text: str, start: int = 0) -> re.Match[str] | None:
        self.handled += len(text) - start
        return self.pattern.search(text, start)

    def finditer(self, text: str, start: int = 0) -> Iterator[re.Match[str]]:
        self.handled += len(text) - start
        return self.pattern.finditer(text, start)


WORK = {  # the pattern that looks for boundaries, and a text with one
    "sentence": (chunking, "_ASCII_END", "x. "),
    "sentence in Chinese": (chunking, "_SENTENCE_END", "\u5b57\u3002x"),
    "word": (words_module, "_SPACED_END", "xx "),
    "word in Chinese": (words_module, "_tokens", "\u5b57x "),
    "paragraph": (chunking, "_PARAGRAPH_END", "x\n\n"),
}


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("boundary_every", [1, 10, 1_000_000])
def test_the_work_per_delta_does_not_grow_with_the_text(
    name: str, boundary_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Characters that are searched, for the first and the last of many deltas."""
    where, pattern, end = WORK[name]
    if pattern == "_tokens":
        counting = Counting(words_module._tokens())  # type: ignore[arg-type]
        monkeypatch.setattr(words_module, "_tokens", lambda: counting)
    else:
        counting = Counting(getattr(where, pattern))
        monkeypatch.setattr(where, pattern, counting)
    strategy = resolve_chunking(name.split()[0])
    unit = "\u30abx(" if "Chinese" in name else "xxx"
    if name == "sentence in Chinese":
        unit = "\u5b57\u5b57x"
    totals: list[int] = []
    for round_ in range(4):
        counting.handled = 0
        for n in range(round_ * 2000, (round_ + 1) * 2000):
            strategy.feed(end if n % boundary_every == 0 else unit)
        totals.append(counting.handled)
    # at most: the delta with the tail before it, and once more what stands after a boundary
    assert 0 < max(totals) <= 2000 * (3 + 4) + 2000 * 4
    assert totals[-1] <= totals[0] * 1.1


LONG = [
    "\u5b57",
    "\u3002",
    "\u3002\u300d",
    "\u300d",
    "\u30ab",
    "\u0e01\u0e49",
    "a",
    "\u300a",
    "!",
    ".",
    "\u0301",
    ";",
    "\u0964",
]


@named
@pytest.mark.parametrize("unit", LONG)
def test_a_long_run_of_anything_is_cut_in_one_pass(name: str, unit: str) -> None:
    """A hundred thousand of them take a moment; what is quadratic takes minutes."""
    text = unit * 100_000
    whole = chunks_of(resolve_chunking(name), [text])
    deltas = [text[at : at + 100] for at in range(0, len(text), 100)]
    assert chunks_of(resolve_chunking(name), deltas) == whole
    assert "".join(whole) == text


@named
def test_what_is_kept_does_not_grow_with_the_chunks_already_given(name: str) -> None:
    strategy = resolve_chunking(name)
    end = {"sentence": "x. ", "word": "xx ", "paragraph": "x\n\n"}[name]
    for _ in range(1000):
        strategy.feed(end)
        assert sum(map(len, strategy._pending)) <= 3  # type: ignore[attr-defined]


# --- against Unicode's tables ----------------------------------------------------------------------


def test_the_marks_that_end_a_sentence_are_unicodes() -> None:
    ours, theirs = re.compile(f"[{STOPS_OF_OURS}]"), regex.compile(r"\p{SB=STerm}")
    for char in map(chr, range(0x110000)):
        if unicodedata.category(char) != "Cn":
            expected = theirs.match(char) is not None and char not in "!?\u104a"
            assert (ours.match(char) is not None) == expected, ascii(char)


def test_the_closing_quotes_and_brackets_are_unicodes() -> None:
    ours = re.compile(f"[{CLOSERS}]")
    for char in map(chr, range(0x110000)):
        if unicodedata.category(char) != "Cn":
            assert (ours.match(char) is not None) == closes(char), ascii(char)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u3053\u308c\u306f\u30da\u30f3\u3067\u3059", 6),  # katakana in one, hiragana one by one
        ("\u0e19\u0e49\u0e33", 1),  # a consonant, a tone mark, a vowel that Unicode takes with them
        ("\u1780\u17d2\u1780", 1),  # stacked consonants
        ("\u1000\u1019\u1039\u1018\u102c", 2),
        ("\u0f56\u0f7c\u0f51\u0f0b\u0f61\u0f72\u0f42\u0f0d", 2),  # Tibetan syllables
        ("\ud55c\uad6d\uc5b4 \ubb38\uc7a5", 2),
        ("ti\u1ebfng Vi\u1ec7t", 2),
        ("\u6211\u6709iPhone15\u548c3.5\u5143", 6),
        ("**\u91cd\u8981**\uff1a\u300c\u8bf7\u300d", 3),
        ("\U0001f44d\U0001f3fd \u2764\ufe0f", 2),
        ("\u0915\u094d\u0937 \u0915", 2),
        ("\u4f60\u597d,world", 3),
    ],
)
def test_words_are_counted_as_unicode_has_them(text: str, expected: int) -> None:
    assert len(chunks_of(resolve_chunking("word"), [text])) == expected


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


@pytest.mark.parametrize("wrong", ["words", "", "Sentence", 3, SentenceChunker, ["word"], 2.5])
def test_an_unknown_chunking_is_an_error_that_says_what_there_is(wrong: object) -> None:
    with pytest.raises(InvalidOption, match=r"'sentence', 'sentences', 'word', 'paragraph', None"):
        resolve_chunking(wrong)  # type: ignore[arg-type]


@named
def test_a_strategy_is_empty_after_its_flush(name: str) -> None:
    strategy = resolve_chunking(name)
    strategy.feed("a trailing fragment")
    assert len(strategy.flush()) == 1
    assert [*strategy.flush()] == []
    assert [*strategy.feed("")] == []
