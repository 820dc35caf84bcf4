"""The calls of an answer are put together from their pieces, however a server counts and cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc.core.backend import asks_for_calls
from mellea_sc.core.generation_info import ToolCall, ToolCallDelta, ToolCallParts

A = ToolCall("a", "look", '{"x": 1}')
B = ToolCall("b", "find", '{"y": 2}')


def together(*pieces: ToolCallDelta) -> tuple[ToolCall, ...]:
    parts = ToolCallParts()
    for piece in pieces:
        parts.take(piece)
    return parts.calls


def piece(
    arguments: str = "", *, id: str = "", name: str = "", index: int | None = None
) -> ToolCallDelta:
    return ToolCallDelta(id, name, arguments, index)


def first(call: ToolCall, arguments: str = "", *, index: int | None = None) -> ToolCallDelta:
    return ToolCallDelta(call.id, call.name, arguments, index)


def test_no_pieces_are_no_calls() -> None:
    assert together() == ()


@given(data=st.data())
def test_calls_that_are_counted_are_put_together_wherever_they_are_cut(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text(max_size=6), min_size=1, max_size=4))
    calls = [ToolCall(f"id{n}", f"f{n}", text) for n, text in enumerate(texts)]
    left = [list(call.arguments) for call in calls]
    pieces = [first(call, index=n) for n, call in enumerate(calls)]
    while any(left):  # interleaved, as nobody sends them
        number = data.draw(st.sampled_from([n for n, some in enumerate(left) if some]))
        pieces.append(piece(left[number].pop(0), index=number))
    assert together(*pieces) == tuple(calls)


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        pytest.param(
            [first(A), piece('{"x":'), piece(" 1}"), first(B), piece('{"y": 2}')],
            [A, B],
            id="not counted",
        ),
        pytest.param(
            [first(A, A.arguments), first(B, B.arguments)], [A, B], id="not counted, and whole"
        ),
        pytest.param(
            [
                piece(A.arguments, name=A.name),
                piece(A.arguments, name=A.name),
                piece(B.arguments, name=B.name),
            ],
            [ToolCall("", A.name, A.arguments)] * 2 + [ToolCall("", B.name, B.arguments)],
            id="whole, without ids (Ollama)",
        ),
        pytest.param(
            [first(A, A.arguments, index=0), first(B, B.arguments, index=0)],
            [A, B],
            id="all with the number 0 and ids of their own (Dynamo)",
        ),
        pytest.param(
            [
                piece(A.arguments, name=A.name, index=0),
                piece(B.arguments, name=B.name, index=0),
            ],
            [ToolCall("", A.name, A.arguments), ToolCall("", B.name, B.arguments)],
            id="all with the number 0, without ids",
        ),
        pytest.param(
            [first(A, '{"x":', index=0), first(A, " 1}", index=0)], [A], id="named in each piece"
        ),
        pytest.param(
            [first(A, '{"x":', index=0), piece(" 1}", id="z", index=0)],
            [A],
            id="an id of its own for each piece",
        ),
        pytest.param(
            [piece('{"x":', id="a"), piece(" 1}", id="a"), piece(id="a", name="look")],
            [A],
            id="named last, told by the id (SGLang)",
        ),
        pytest.param(
            [first(A, index=0), piece('{"x":', index=1), piece(" 1}", index=2)],
            [A],
            id="each piece counted (Cerebras)",
        ),
        pytest.param(
            [piece(id="a", index=0), piece(name="lo", index=0), piece("{}", name="ok", index=0)],
            [ToolCall("a", "look", "{}")],
            id="a name in pieces",
        ),
        pytest.param(
            [first(A, A.arguments, index=0), ToolCallDelta("a", "find", "{}", 1)],
            [A, ToolCall("a", "find", "{}")],
            id="one id for two calls",
        ),
        pytest.param([piece("{}")], [ToolCall("", "", "{}")], id="arguments of nobody"),
        pytest.param(
            [first(A, '"\ud83d', index=0), piece('\ude00"', index=0)],
            [ToolCall("a", "look", '"\U0001f600"')],
            id="a character that is cut in two",
        ),
        pytest.param(
            [first(A, '"\ud83d"', index=0)],
            [ToolCall("a", "look", '"\ufffd"')],
            id="half a character",
        ),
    ],
)
def test_servers_that_count_otherwise_are_understood(
    pieces: list[ToolCallDelta], calls: list[ToolCall]
) -> None:
    assert together(*pieces) == tuple(calls)


PIECES = st.builds(
    ToolCallDelta,
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(["", "f", "g"]),
    st.text("xyz", max_size=2),
    st.none() | st.integers(0, 2),
)


@given(st.lists(PIECES, max_size=8))
def test_of_any_pieces_no_text_of_arguments_is_lost(pieces: list[ToolCallDelta]) -> None:
    calls = together(*pieces)
    assert sorted("".join(one.arguments for one in pieces)) == sorted(
        "".join(call.arguments for call in calls)
    )
    assert len(calls) <= len(pieces)


@pytest.mark.parametrize(
    ("options", "asks"),
    [
        ({}, False),
        ({"tools": None}, False),
        ({"tools": []}, False),
        ({"tools": [{"type": "function"}]}, True),
        ({"functions": [{"name": "f"}]}, True),
        ({"extra_body": {"tools": [{"type": "function"}]}}, True),
        ({"extra_body": {"top_k": 3}}, False),
        ({"extra_body": "tools"}, False),
    ],
)
def test_a_request_asks_for_calls_by_what_it_offers(options: dict[str, object], asks: bool) -> None:
    assert asks_for_calls(options) is asks
