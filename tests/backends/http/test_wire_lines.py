"""Bytes to lines and events: the same for every way to cut the bytes, bounded, and nothing dropped that says something."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc.backends.http.splitting import EventSplitter, LineSplitter, Splitter
from mellea_sc.core.errors import BackendProtocolError

pytestmark = pytest.mark.timeout(600)  # of a night's many examples

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


def events(*pieces: bytes) -> list[str]:
    return all_of(EventSplitter(), pieces)


def lines(*pieces: bytes) -> list[str]:
    return all_of(LineSplitter(), pieces)


# Few kinds of characters, so that line ends meet, and one of several bytes, so that it is cut.
TEXTS = st.text(alphabet="a:\n\r é\u2028\x0b\U0001f600", max_size=40).map(str.encode)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
# What WHATWG's rules and ours say the same of.
FIELDS = st.sampled_from(
    [
        *("data: x", "data:y", "data:  z", "data", "data:", "data: é", "data: {", "data: ]"),
        *(
            ": ping",
            ":data: no",
            "event: e",
            "id: 7",
            "retry: 1",
            "",
            "",
            "foo: bar",
            "foo",
            "datax: y",
        ),
    ]
).map(str.encode)
STREAMS = st.lists(st.tuples(FIELDS, ENDS)).map(lambda pairs: b"".join(map(b"".join, pairs)))
# What breaks them too.
# Nearly every read is of such events or lines, and each of them may be followed by anything else.
USUAL = st.lists(
    st.sampled_from(
        b'data: {"a": "\xc3\xa9"}\n\n|data: [DONE]\n\n|data: [{}]\n\n|{"a": 1}\n|{"b": {}}\n|data: {"c": 1}\n|'
        b'data: {"d": 1}\r\n\r\n|\r|\n|event: error\n|<p>\n\n|{\n|}\n|\xff|\xc3|\xef\xbb\xbf|: ping\n\n'.split(
            b"|"
        )
    ),
    max_size=8,
).map(b"".join)
BROKEN = st.lists(
    st.sampled_from(
        b'data: |data|event: error|error: |{|}|[|]|\n|\n\n|\r|\0|\xff|\xc3|{"error": "x"}|<p>| |:|'
        b"[DONE]|\xef\xbb\xbf".split(b"|")
    ),
    max_size=20,
).map(b"".join)


def whatwg(data: bytes) -> list[str]:
    """The data of the events, by the letter of the rules, and slowly; what is left open at the end is given."""
    found: list[str] = []
    held: list[str] = []
    text = data.decode().removeprefix("\ufeff")
    for line in [*re.split(r"\r\n|\r|\n", text), ""]:
        name, colon, value = line.partition(":")
        if not line:
            if held != [] and held != [""]:
                found.append("\n".join(held))
            held = []
        elif colon and not name:
            pass
        elif name == "data":
            held.append(value[1:] if value[:1] == " " else value)
    return found


@given(cut_bytes(STREAMS | STREAMS.map(lambda data: BOM + data)))
def test_events_are_what_the_rules_say_however_it_is_cut(cut: tuple[bytes, list[bytes]]) -> None:
    data, pieces = cut
    assert events(*pieces) == whatwg(data)


@given(cut_bytes(TEXTS))
def test_lines_are_those_of_the_whole_however_it_is_cut(cut: tuple[bytes, list[bytes]]) -> None:
    data, pieces = cut
    expected = [line for line in re.split(r"\r\n|\r|\n", data.decode()) if line.strip(" \x0b")]
    assert lines(*pieces) == expected


@given(cut_bytes(STREAMS | TEXTS | BROKEN | USUAL), st.sampled_from([LineSplitter, EventSplitter]))
def test_whatever_comes_is_the_same_however_it_is_cut(
    cut: tuple[bytes, list[bytes]], make: Callable[[], Splitter]
) -> None:
    data, pieces = cut
    assert all_of(make(), pieces) == all_of(make(), [data])


@given(cut_bytes(st.binary(max_size=60) | BROKEN), st.sampled_from([LineSplitter, EventSplitter]))
def test_arbitrary_bytes_give_bounded_texts_or_a_typed_error(
    cut: tuple[bytes, list[bytes]], make: Callable[[int], Splitter]
) -> None:
    splitter = make(20)
    try:
        texts = all_of(splitter, cut[1])
    except BackendProtocolError:
        return
    assert all(len(text) <= 80 for text in texts)  # an error is wrapped, odd bytes are announced
    assert len(splitter.unread) <= 80


def test_a_line_is_given_as_soon_as_its_end_is_there_even_a_lone_cr() -> None:
    splitter = LineSplitter()
    assert list(splitter.feed(b"one\r")) == ["one"]
    assert list(splitter.feed(b"\ntwo\n")) == ["two"]


def test_an_event_is_given_as_soon_as_its_blank_line_is_there() -> None:
    splitter = EventSplitter()
    assert list(splitter.feed(b"data: one\r\n\r")) == ["one"]
    assert list(splitter.feed(b"\ndata: two\n")) == []
    assert list(splitter.feed(b"\n")) == ["two"]


def test_a_byte_order_mark_is_dropped_at_the_beginning_only() -> None:
    assert lines(BOM[:1], BOM[1:] + b"a\n", BOM + b"b\n") == ["a", "\ufeffb"]
    assert events(BOM[:2], BOM[2:] + b"data: a\n\n") == ["a"]


def test_an_event_has_all_its_data_lines_and_none_without_data_is_given() -> None:
    stream = b": hello\n\nid: 1\n\ndata: a\ndata:  b\nevent: x\n\n\n\ndata: c\n\n"
    assert events(stream) == ["a\n b", "c"]


def test_an_event_that_was_not_ended_is_left_for_close() -> None:
    splitter = EventSplitter()
    assert list(splitter.feed(b"data: [DO")) == []
    assert list(splitter.feed(b"NE]")) == []
    assert splitter.close() == ["[DONE]"]
    assert splitter.close() == []


def test_objects_without_a_blank_line_between_them_are_events_of_their_own() -> None:
    assert events(b'data: {"a": 1}\ndata: {"a": 2}\ndata: [DONE]\n\n') == [
        '{"a": 1}',
        '{"a": 2}',
        "[DONE]",
    ]


def test_an_object_in_several_data_lines_is_one_event() -> None:
    written = json.dumps({"choices": [{"a": {}}, {"b": {}}], "c": [{}, {}]}, indent=1)
    stream = "".join(f"data: {line}\n" for line in written.splitlines())
    assert events(stream.encode() + b"\n") == [written]


@pytest.mark.parametrize("words", ["too hot", '{"message": "too hot", "code": 429}'])
@pytest.mark.parametrize(
    "form",
    [
        "event: error\ndata: {}\n\n",
        "data: {}\nevent: error\n\n",
        "event: error\n\ndata: {}\n\n",  # a gateway ends the event too early
        "event:error\ndata:{}",
        "error: {}\n\n",
        "error:{}",
    ],
)
def test_an_error_in_any_form_is_an_object_that_says_so(form: str, words: str) -> None:
    (text,) = events(form.replace("{}", words).encode())
    said = json.loads(text)["error"]
    assert said == (json.loads(words) if words[0] == "{" else words)


def test_an_error_that_says_so_itself_is_given_as_it_is_and_one_without_words_is_one() -> None:
    whole = '{"error": {"message": "too hot"}}'
    assert events(f"event: error\ndata: {whole}\n\n".encode()) == [whole]
    assert json.loads(events(b'event: error\ndata: {"error": null}\n\n')[0])["error"]
    assert json.loads(events(b"event: error\ndata:\n\n")[0])["error"]


def test_an_error_event_is_over_with_its_data() -> None:
    assert events(b"event: error\ndata: x\n\ndata: y\n\nevent: e\ndata: z\n\n")[1:] == ["y", "z"]


@pytest.mark.parametrize(
    "sign",
    [
        b": PROCESSING\n\n",
        b"data: : PROCESSING\n\n",  # a comment that a gateway has put into an event
        b"data:\n\n",
        b'data: ""\n\n',
        b'event: ping\ndata: ""\n\n',
        b"event: ping\ndata: 2026-01-01T00:00:00Z\n\n",
        b"event: keepalive\ndata: 1\n\n",
        b"event: heartbeat\r\ndata: null\r\n\r\n",
        b"event: ping\n\n",
        b"data: ping\nevent: ping\n\n",
    ],
)
def test_a_sign_of_life_is_no_part_of_an_answer(sign: bytes) -> None:
    stream = sign + b'data: {"a": 1}\n\n' + sign + b"data: [DONE]\n\n" + sign
    for size in (1, 7, len(stream)):
        reads = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert events(*reads) == ['{"a": 1}', "[DONE]"]


def test_an_object_is_given_whatever_its_event_is_called() -> None:
    assert events(b'event: ping\ndata: {"a": 1}\n\ndata: b\n\n') == ['{"a": 1}', "b"]


PRETTY = [
    json.dumps({"error": {"message": "too hot", "details": [{}, {"a": []}]}}, indent=2),
    json.dumps([{"error": {"message": "too hot"}}], indent=2),
    '[{\n  "error": {\n    "message": "too hot"\n  }\n}\n]',  # Google's
]


@pytest.mark.parametrize("written", PRETTY)
@pytest.mark.parametrize("end", ["", "\n", "\r\n\r\n"])
def test_json_without_a_field_before_it_is_a_text_over_several_lines_too(
    written: str, end: str
) -> None:
    stream = (written + end).encode()
    for read in (events, lines):
        (text,) = read(stream[:10], stream[10:])
        assert json.loads(text) == json.loads(written)
    assert events(b'{"a": 1}\n\ndata: b\n\n') == ['{"a": 1}', "b"]


def test_json_over_several_lines_that_is_cut_off_ends_where_the_stream_goes_on() -> None:
    assert events(b'{\n "a": 1\ndata: b\n\n') == ['{\n "a": 1', "b"]


@pytest.mark.parametrize("line", [b'xdata: {"a": 1}', b'\1data: {"a": 1}', b'ata: {"a": 1}'])
def test_a_line_that_may_be_a_spoilt_delta_is_not_dropped(line: bytes) -> None:
    assert events(line + b"\n\n") == [line.decode()]


@pytest.mark.parametrize("junk", [b"\0", b"\0\0", b" "])
def test_padding_before_a_field_is_no_part_of_its_name(junk: bytes) -> None:
    assert events(junk + b"data: a\n\n") == ["a"]


def test_what_is_passed_over_is_kept_for_the_error_and_bounded() -> None:
    splitter = EventSplitter()
    for _ in range(100):
        assert list(splitter.feed(b"upstream connect error\n")) == []
    assert splitter.unread.startswith("upstream connect error\n")
    assert len(splitter.unread) < 2000


def test_words_without_end_and_without_an_event_are_given_to_be_refused() -> None:
    splitter = EventSplitter()
    given_out: list[str] = []
    for _ in range(100):
        given_out += splitter.feed(b"words and words\n" * 100)
    assert len(given_out) == 1
    assert given_out[0].startswith("words and words")


def test_a_page_is_given_at_once_to_be_refused() -> None:
    assert list(EventSplitter().feed(b"<!doctype html>\n<html>\n")) == ["<!doctype html>\n"]


def test_bytes_that_are_not_utf8_are_no_json_whatever_they_would_be_otherwise() -> None:
    for text in [*events(b'data: {"a": "\xff"}\n\n'), *lines(b'{"a": "\xff"}\n')]:
        assert text.startswith("not UTF-8")
        with pytest.raises(ValueError, match="Expecting"):
            json.loads(text)


def test_a_line_without_end_is_refused_before_it_is_held() -> None:
    splitter = LineSplitter(100)
    assert list(splitter.feed(b"x" * 100)) == []
    with pytest.raises(BackendProtocolError, match="longer than 100"):
        list(splitter.feed(b"x"))


@pytest.mark.parametrize("make", [LineSplitter, EventSplitter])
@pytest.mark.parametrize("begin", [b"x", b"data: ", b": "])
def test_a_line_over_the_limit_that_comes_whole_is_refused_too(
    make: Callable[[int], Splitter], begin: bytes
) -> None:
    with pytest.raises(BackendProtocolError, match="longer than 100"):
        list(make(100).feed(begin + b"x" * 101 + b"\n"))


@pytest.mark.parametrize("line", [b"data: 0123456789\n", b" data: 0123456789\n"])
def test_an_event_of_endlessly_many_lines_is_refused(line: bytes) -> None:
    splitter = EventSplitter(100)
    with pytest.raises(BackendProtocolError, match="event longer than 100"):
        for _ in range(200):
            list(splitter.feed(line))


@pytest.mark.parametrize("make", [LineSplitter, EventSplitter])
def test_json_of_endlessly_many_lines_is_refused(make: Callable[[int], Splitter]) -> None:
    splitter = make(100)
    assert list(splitter.feed(b"{\n")) == []
    with pytest.raises(BackendProtocolError, match="JSON value longer than 100"):
        for _ in range(200):
            list(splitter.feed(b" 1,\n"))


def test_comments_without_end_are_not_held_against_a_stream() -> None:
    splitter = EventSplitter(100)
    for _ in range(100):
        assert list(splitter.feed(b": keep-alive\n")) == []


@pytest.mark.parametrize("make", [LineSplitter, EventSplitter])
def test_what_came_whole_before_the_error_is_given_first(make: Callable[[int], Splitter]) -> None:
    texts: list[str] = []
    with pytest.raises(BackendProtocolError, match="longer"):
        for text in make(20).feed(b"data: good\n\n" + b"x" * 30):
            texts.append(text)  # noqa: PERF402 - up to the error
    assert "good" in texts[0]
