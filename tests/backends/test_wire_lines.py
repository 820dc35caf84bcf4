"""Bytes to lines and events: the same for every way to cut the bytes, and bounded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc.backends.http.lines import EventSplitter, LineSplitter, Splitter
from mellea_sc.core.errors import BackendProtocolError

BOM = b"\xef\xbb\xbf"


@st.composite
def cut_bytes(draw: st.DrawFn, texts: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    """Bytes, and the same in pieces, some of which are empty."""
    data = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return data, [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def all_of(splitter: Splitter, pieces: Sequence[bytes]) -> list[str]:
    texts = [text for piece in pieces for text in splitter.feed(piece)]
    return [*texts, *splitter.close()]


# Few kinds of characters, so that line ends meet, and one of several bytes, so that it is cut.
TEXTS = st.text(alphabet="a:\n\r é\u2028\x0b\U0001f600", max_size=40).map(str.encode)
EVENTS = st.lists(
    st.sampled_from(
        [
            b"data: x",
            b"data:y",
            b"data",
            b": ping",
            b"event: e",
            b"id: 7",
            b"",
            b"retry: 1",
            "data: é".encode(),
        ]
    )
).map(b"\r\n".join)


@given(cut_bytes(TEXTS))
def test_lines_are_those_of_the_whole_however_it_is_cut(cut: tuple[bytes, list[bytes]]) -> None:
    data, pieces = cut
    expected = re.split(r"\r\n|\r|\n", data.decode())
    if not expected[-1]:
        expected.pop()
    assert all_of(LineSplitter(), pieces) == expected


@given(cut_bytes(EVENTS | TEXTS))
def test_events_are_those_of_the_whole_however_it_is_cut(cut: tuple[bytes, list[bytes]]) -> None:
    data, pieces = cut
    assert all_of(EventSplitter(), pieces) == all_of(EventSplitter(), [data])


@given(cut_bytes(st.binary(max_size=60)), st.sampled_from([LineSplitter, EventSplitter]))
def test_arbitrary_bytes_give_texts_or_a_typed_error(
    cut: tuple[bytes, list[bytes]], make: Callable[[int], Splitter]
) -> None:
    try:
        texts = all_of(make(20), cut[1])
    except BackendProtocolError:
        return
    assert all(len(text) <= 20 for text in texts)


def test_a_line_is_given_as_soon_as_its_end_is_there_even_a_lone_cr() -> None:
    splitter = LineSplitter()
    assert list(splitter.feed(b"one\r")) == ["one"]
    assert list(splitter.feed(b"\n")) == []
    assert list(splitter.feed(b"\n")) == [""]


def test_a_byte_order_mark_is_dropped_at_the_beginning_only() -> None:
    assert all_of(LineSplitter(), [BOM[:1], BOM[1:] + b"a\n", BOM + b"b\n"]) == ["a", "\ufeffb"]


def test_an_event_has_all_its_data_lines_and_none_without_data_is_given() -> None:
    stream = b": hello\n\nid: 1\n\ndata: a\ndata:  b\nevent: x\n\n\n\ndata: c\n\n"
    assert all_of(EventSplitter(), [stream]) == ["a\n b", "c"]


def test_an_event_that_was_not_ended_is_left_for_close() -> None:
    splitter = EventSplitter()
    assert list(splitter.feed(b"data: [DO")) == []
    assert list(splitter.feed(b"NE]")) == []
    assert splitter.close() == ["[DONE]"]
    assert splitter.close() == []


def test_a_line_without_end_is_refused_before_it_is_held() -> None:
    splitter = LineSplitter(100)
    assert list(splitter.feed(b"x" * 100)) == []
    with pytest.raises(BackendProtocolError, match="longer than 100"):
        list(splitter.feed(b"x"))


def test_a_line_over_the_limit_that_comes_whole_is_refused_too() -> None:
    with pytest.raises(BackendProtocolError, match="longer than 100"):
        list(LineSplitter(100).feed(b"x" * 101 + b"\n"))


def test_an_event_of_endlessly_many_lines_is_refused() -> None:
    splitter = EventSplitter(100)
    with pytest.raises(BackendProtocolError, match="event longer than 100"):
        for _ in range(20):
            list(splitter.feed(b"data: 0123456789\n"))


def test_comments_without_end_are_not_held_against_a_stream() -> None:
    splitter = EventSplitter(100)
    for _ in range(100):
        assert list(splitter.feed(b": keep-alive\n")) == []


@pytest.mark.parametrize("make", [LineSplitter, EventSplitter])
def test_what_came_whole_before_the_error_is_given_first(make: Callable[[], Splitter]) -> None:
    texts: list[str] = []
    with pytest.raises(BackendProtocolError, match="UTF-8"):
        texts.extend(make().feed(b""))
        for text in make().feed(b"data: good\n\n\xff\n\n"):
            texts.append(text)  # noqa: PERF402 - up to the error
    assert "good" in texts[0]
