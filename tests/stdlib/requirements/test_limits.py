"""Limits: what is too much fails from its first character on, in every language, and cuts the text off."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from requirement_help import edited, first, marks, passes, pieces_of, streamed

from mellea_sc import MaxCharacters, MaxSentences, MaxWords, Requirement
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.testing import check_requirement, run_virtual
from mellea_sc.testing.strategies import cuts, texts

PARTS = (
    *(
        "\u6211",
        "\u4eec",
        "\u3042",
        "\u30ab\u30bf",
        "\ud55c\uad6d",
        "\u0e19\u0e49\u0e33",
        "\u1780\u17d2\u1780",
        "one",
        "two",
        "3.14",
    ),
    *(
        "\u3002",
        "\uff01",
        "\u0964",
        "\u061f",
        "\uff0c",
        "\u300c",
        "\u300d",
        "\u201c",
        "\u201d",
        "\u00ab",
        ".",
        "!",
        ". ",
        '."',
        "(",
        ")",
        "**",
    ),
    *(" ", "\n", "  \n ", "\r\n", "\u3000", "e\u0301", "\u0301", "\u200d"),
    *(
        "\U0001f1e9\U0001f1ea",
        "\U0001f1e9",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f44d\U0001f3fd",
        "\u0915\u094d\u0937",
    ),
)
PIECES = st.lists(st.sampled_from(PARTS), max_size=24).map("".join) | texts(12)


def from_on(text: str, at: int | None) -> str:
    return "." * len(text) if at is None else "." * at + "x" * (len(text) - at)


def chunks_are_at_most(limit: int, chunking: str, text: str) -> str:
    strategy = resolve_chunking(chunking)
    chunks = [*strategy.feed(text), *strategy.flush()]
    at = 0
    for chunk in chunks[:limit]:
        at = text.index(chunk, at) + len(chunk)
    return from_on(text, text.index(chunks[limit], at) if len(chunks) > limit else None)


def characters_are_at_most(limit: int, text: str) -> str:
    if len(text.rstrip()) <= limit and len(text) <= limit + 64:
        return from_on(text, None)
    ends = [match.end() for match in regex.finditer(r"\X", text)]
    return from_on(text, max([end for end in ends if end <= limit], default=0))


Limit = Callable[..., Requirement]
KINDS: dict[str, tuple[Limit, Callable[[int, str], str]]] = {
    "words": (MaxWords, lambda limit, text: chunks_are_at_most(limit, "word", text)),
    "sentences": (MaxSentences, lambda limit, text: chunks_are_at_most(limit, "sentence", text)),
    "characters": (MaxCharacters, characters_are_at_most),
}
kinds = pytest.mark.parametrize(("make", "expected_marks"), KINDS.values(), ids=KINDS.keys())


@kinds
@given(data=st.data(), text=PIECES, limit=st.integers(1, 9))
@example(data=None, text="e\u0301", limit=1)
@example(data=None, text="a\r\n", limit=2)
@example(data=None, text="a\r\nb", limit=2)
@example(data=None, text="\U0001f1e9" * 9, limit=5)
@example(data=None, text="\u6211\u3002\u201c\u4eec\u3002\u201d", limit=1)
def test_what_is_too_much_fails_from_its_first_character_on_wherever_the_text_is_cut(
    make: Limit,
    expected_marks: Callable[[int, str], str],
    data: st.DataObject | None,
    text: str,
    limit: int,
) -> None:
    expected = expected_marks(limit, text)
    deltas = [text] if data is None else data.draw(cuts(text))
    assert marks(make(limit), deltas) == expected
    assert marks(make(limit), [text]) == expected
    assert marks(make(limit), list(text)) == expected
    assert run_virtual(passes, make(limit), text) == ("x" not in expected)
    left = edited(make(limit), deltas, "filter")
    assert left == edited(make(limit), deltas, "fix") == text[: first(expected)]
    assert run_virtual(passes, make(limit), left)


@kinds
def test_every_fail_says_that_it_cuts_the_text_off(
    make: Limit, expected_marks: Callable[[int, str], str]
) -> None:
    text = "One two. Three four. \u4e94\u3002\u516d\u3002" * 3
    for deltas in ([text], list(text)):
        verdicts = [piece.verdict for piece in pieces_of(make(3), deltas)]
        assert {one.cuts_off for one in verdicts if one.success == "fail"} == {True}
        assert {one.cuts_off for one in verdicts if one.success != "fail"} == {False}


@kinds
@given(
    data=st.data(),
    text=PIECES,
    limit=st.integers(1, 6),
    chunking=st.sampled_from(["sentence", "word", None]),
    loop=st.sampled_from(["asyncio", "trio"]),
)
def test_a_run_stops_before_what_is_too_much(
    make: Limit,
    expected_marks: Callable[[int, str], str],
    data: st.DataObject,
    text: str,
    limit: int,
    chunking: str | None,
    loop: str,
) -> None:
    begins = first(expected_marks(limit, text))
    deltas = data.draw(cuts(text, max_deltas=6))
    result = run_virtual(streamed, make(limit), deltas, chunking, backend=loop)
    assert result.completed == (begins is None)
    assert text[:begins].startswith(result.full_text)


# --- what is held back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [MaxWords, MaxSentences])
@given(text=PIECES)
def test_nothing_within_a_number_of_words_or_sentences_waits(make: Limit, text: str) -> None:
    watch = resolve_chunking(make(1000).chunking)
    for char in text:
        assert "".join(watch.feed(char)) == char


@given(text=PIECES.filter(lambda text: "\u0301" not in text and "\u200d" not in text))
def test_of_characters_only_one_waits_and_only_near_the_limit(text: str) -> None:
    far, near = (resolve_chunking(MaxCharacters(limit).chunking) for limit in (10_000, 300))
    given_near = 0
    for count, char in enumerate(text, 1):
        assert "".join(far.feed(char)) == char
        given_near += len("".join(near.feed(char)))
        last = regex.findall(r"\X", text[:count])[-1]
        assert given_near in (count, count - len(last))


def test_endless_white_space_after_a_limit_of_words_passes_and_after_one_of_characters_does_not() -> (
    None
):
    text = "one two" + " " * 100
    assert marks(MaxWords(2), list(text)) == "." * len(text)
    assert marks(MaxCharacters(7), list(text)) == "." * 7 + "x" * 100


# --- graphemes ----------------------------------------------------------------------------------------------

ONE_CHARACTER = {
    "letter and accent": "e\u0301",
    "letter and many accents": "a" + "\u0301\u0323\u0308" * 9,
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "flag": "\U0001f1eb\U0001f1f7",
    "thumb": "\U0001f44d\U0001f3fd",
    "keycap": "1\ufe0f\u20e3",
    "heart": "\u2764\ufe0f\u200d\U0001f525",
    "Hindi": "\u0915\u094d\u0937\u093f",
    "Khmer": "\u1780\u17d2\u1780\u17b6",
    "Thai": "\u0e19\u0e49\u0e33",
    "Korean": "\u1112\u1161\u11ab",
    "new line": "\r\n",
    "Scotland": "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
}


@pytest.mark.parametrize("grapheme", ONE_CHARACTER.values(), ids=ONE_CHARACTER.keys())
@pytest.mark.parametrize(
    "before", ["", "ab", "x" * 100, "\U0001f1e9\U0001f1ea" * 60, "e\u0301" * 90]
)
def test_what_a_reader_sees_as_one_character_is_whole_or_not_there(
    grapheme: str, before: str
) -> None:
    text = before + grapheme + grapheme + "z"
    for limit in range(max(1, len(before)), len(text)):
        whole = [0, len(grapheme), 2 * len(grapheme)]
        end = len(before) + max(size for size in whole if len(before) + size <= limit)
        for deltas in ([text], list(text), [text[:limit], text[limit:]]):
            assert edited(MaxCharacters(limit), deltas, "filter") == text[:end]


def test_flags_are_counted_from_the_first_however_many_there_are() -> None:
    for count in range(60, 75):
        text = "\U0001f1e9" * 150
        kept = edited(MaxCharacters(count), list(text), "filter")
        assert len(kept) == count - count % 2
        assert (
            edited(MaxCharacters(count), ["a" + text], "filter")
            == "a" + text[: (count - 1) // 2 * 2]
        )


# --- languages ----------------------------------------------------------------------------------------------

SENTENCES = [
    (
        "Chinese",
        ["\u4eca\u5929\u4e0b\u96e8\u3002", "\u660e\u5929\u6674\uff01", "\u540e\u5929\u5462\uff1f"],
    ),
    (
        "Japanese",
        ["\u96e8\u3067\u3059\u3002", "\u300e\u306f\u3044\uff01\u300f", "\u305d\u3046\uff1f"],
    ),
    (
        "Hindi",
        [
            "\u092f\u0939 \u0939\u0948\u0964",
            "\u0935\u0939 \u0939\u0948\u0965",
            "\u092c\u0938\u0964",
        ],
    ),
    ("Urdu", ["\u06cc\u06c1 \u06c1\u06d2\u06d4", "\u0648\u06c1 \u06c1\u06d2\u06d4"]),
    ("Amharic", ["\u1230\u120b\u121d\u1362", "\u12f0\u1205\u1293\u1362"]),
    ("Khmer", ["\u1798\u17bd\u1799\u17d4", "\u1796\u17b8\u179a\u17d4"]),
]


@pytest.mark.parametrize(("language", "sentences"), SENTENCES)
@pytest.mark.parametrize("space", ["", " ", "\n"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_sentences_of_every_script_are_counted(
    language: str, sentences: Sequence[str], space: str, loop: str
) -> None:
    text = space.join(sentences)
    enough = run_virtual(streamed, MaxSentences(len(sentences)), list(text), None, backend=loop)
    assert enough.full_text == text
    assert [bool(verdict) for verdict in enough.final_validations] == [True]
    few = run_virtual(streamed, MaxSentences(len(sentences) - 1), list(text), None, backend=loop)
    assert few.full_text.rstrip() == space.join(sentences[:-1])
    assert [verdict.reason for _, verdict in few.streaming_failures] == [
        f"more than {len(sentences) - 1} sentence{'s' * (len(sentences) > 2)}"
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\u6211\u559c\u6b22\u732b\u3002\u4ed6\u559c\u6b22\u72d7\u3002", 8),
        ("I love \u5317\u4eac\u70e4\u9e2d very much", 8),
        ("\u6771\u4eac\u30bf\u30ef\u30fc\u306b\u884c\u304f", 6),
        ("\ub098\ub294 \uc624\ub298 \ud559\uad50\uc5d0 \uac14\ub2e4", 4),
        ("Don't stop: well-known 3.14, e.g. U.S.A. now", 7),
        ("L'eau d'ici n'est-elle pas bonne", 5),
        ("Stra\u00dfenbahnhaltestelle hei\u00dft sie", 3),
        ("\u0645\u0631\u062d\u0628\u0627 \u0628\u0643\u0645", 2),
        (
            "\u1230\u120b\u121d\u1361\u1208\u12d3\u1208\u121d\u1361\u1201\u1209\u1362 \u12a5\u123a\u1362",
            4,
        ),
    ],
)
def test_words_of_every_script_are_counted(text: str, words: int) -> None:
    for form in ("NFC", "NFD"):
        said = unicodedata.normalize(form, text)
        assert "x" not in marks(MaxWords(words), list(said))
        assert "x" in marks(MaxWords(words - 1), list(said))


@pytest.mark.parametrize("make", [MaxSentences, MaxWords])
@pytest.mark.anyio
async def test_it_keeps_the_promises_of_requirements(make: Limit) -> None:
    await check_requirement(lambda: make(3))


@kinds
@pytest.mark.parametrize("unit", ["\u5b57", "\u3002", "a ", "e\u0301", "\U0001f1e9", "\r\n"])
def test_a_long_text_is_judged_in_one_pass(
    make: Limit, expected_marks: Callable[[int, str], str], unit: str
) -> None:
    text = unit * 50_000
    for size in (7, len(text)):
        deltas = [text[at : at + size] for at in range(0, len(text), size)]
        assert "".join(pieces_of(make(90_000), deltas)) == text
