"""Lines on a terminal are broken between words, wherever the text was cut."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mellea_sc.cli.lines import WordWrap, hanging, story

CHARACTERS = st.text(alphabet="abé  \n\t水雨。🙂-\u200d\ufe0f\u0301\U0001f3fd", max_size=80)


def _wrapped(pieces: Sequence[str], width: int) -> str:
    wrap = WordWrap(width)
    return "".join([*map(wrap.feed, pieces), wrap.end()])


@given(st.lists(CHARACTERS, max_size=8), st.integers(4, 30))
def test_no_line_is_too_wide_and_no_word_is_broken_that_fits(pieces: list[str], width: int) -> None:
    text = "".join(pieces)
    shown = _wrapped(pieces, width)
    assert shown == _wrapped([text], width), "it depends on where the text was cut"
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", text)
    for line in shown.split("\n"):
        assert cell_len(line.replace("\t", " ")) <= width
    for word in re.findall(r"[abé-]+", text):
        assert len(word) > width or word in shown


def test_a_word_is_shown_when_it_is_known_how_long_it_is() -> None:
    wrap = WordWrap(10)
    assert wrap.feed("The wa") == "The"
    assert wrap.feed("ter cycle") == " water"
    assert wrap.feed(" goes\n") == "\ncycle goes\n"
    assert wrap.feed("水は空") == "水は"
    assert wrap.end() == "空"


def test_a_picture_of_several_characters_is_not_broken() -> None:
    family, thumb, flag = (
        "\U0001f469\u200d\U0001f469\u200d\U0001f467",
        "\U0001f44d\U0001f3fd",
        "\U0001f1e9\U0001f1ea",
    )
    for picture in (family, thumb, flag, "\u2764\ufe0f", "\U0001f6e0\ufe0f"):
        text = f"12345678 {picture} next {picture}."
        for width in (4, 8, 9, 10, 11, 12):
            for pieces in ([text], list(text)):
                assert picture in _wrapped(pieces, width)
    assert _wrapped(["\u200d", " \u0301 ", "\U0001f3fd"], 8).split() == [
        "\u200d",
        "\u0301",
        "\U0001f3fd",
    ]


def _console(width: int, *, is_terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=width)


def test_what_does_not_fit_hangs_and_a_pipe_gets_one_line() -> None:
    words = Text("stopped by a failed check, 1.20 s in all")
    lines = [str(line) for line in hanging(_console(24), "  ", "    ", words)]
    assert [line.rstrip() for line in lines] == [
        "  stopped by a failed",
        "    check, 1.20 s in all",
    ]
    lines = [str(one) for one in hanging(_console(24, is_terminal=False), "  ", "    ", words)]
    assert lines == [f"  {words}"]


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_tree_keeps_its_branches_when_its_lines_are_broken(width: int) -> None:
    tree = (
        "Tell me of rain: accepted, 1.24 s, 34 tokens\n"
        "├─ attempt 1: failed, 0.91 s, about 31 tokens\n"
        "│     because of requirement 'at most 2 sentences' at chunk 2\n"
        "└─ attempt 2: accepted, 0.33 s"
    )
    lines = [str(line) for line in story(_console(width), tree)]
    assert all(len(line.rstrip()) <= width for line in lines)
    assert " ".join("".join(re.sub("[│├└─]", " ", line) + " " for line in lines).split()) == (
        " ".join(re.sub("[│├└─]", " ", tree).split())
    )
    between = lines[lines.index(next(one for one in lines if one.startswith("├─"))) + 1 :]
    assert all(one[0] in "│└ " for one in between)
    assert between[0].startswith("│")
