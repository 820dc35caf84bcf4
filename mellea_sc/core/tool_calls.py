"""Calls that a model wants to have made, and how they are put together from the pieces of a stream.

OpenAI's protocol counts an answer's calls, and sends the id and the name with a call's first piece. Servers
differ: some count nothing, some give every call the number 0, some repeat the name, or send it last, and
some count each piece anew. So a piece belongs to the call with its number, if the id does not speak against
that; a piece with neither id nor name goes on where the last one has ended; and nothing is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import attrs

from mellea_sc.core.model_options import ModelOptions

__all__ = ["ToolCall", "ToolCallDelta", "ToolCallParts", "asks_for_calls"]


@attrs.frozen
class ToolCall:
    """A call that a model wants to have made.

    Args:
        id: What the server calls it, for the answer to it; empty where it gives none.
        name: The function.
        arguments: The text that the model has written for them: JSON, if it kept to that.
    """

    id: str
    name: str
    arguments: str


@attrs.frozen
class ToolCallDelta:
    """The next piece of a call.

    Args:
        id: The call's id, if it is said here.
        name: The function's name, if it is said here.
        arguments: New text of the arguments.
        index: Which of the answer's calls it belongs to, where the server counts them.
    """

    id: str = ""
    name: str = ""
    arguments: str = ""
    index: int | None = None


@attrs.define(eq=False)
class _Open:
    """A call as far as it has come."""

    id: str = ""
    name: str = ""
    arguments: list[str] = attrs.field(factory=list[str])


class ToolCallParts:
    """The calls of one answer, put together from their pieces."""

    __slots__ = ("_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Open] = []
        self._by_index: dict[int, _Open] = {}

    def take(self, piece: ToolCallDelta) -> None:
        """Take the next piece."""
        call = self._call_of(piece)
        call.id = call.id or piece.id
        if piece.name != call.name:
            call.name += piece.name
        if piece.arguments:
            call.arguments.append(piece.arguments)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls as far as they have come, in the order of their beginnings."""
        return tuple(ToolCall(one.id, one.name, _joined(one.arguments)) for one in self._calls)

    def _call_of(self, piece: ToolCallDelta) -> _Open:
        known = self._open_call_of(piece)
        if known is None:
            known = _Open()
            self._calls.append(known)
            if piece.index is not None:
                self._by_index[piece.index] = known
        return known

    def _open_call_of(self, piece: ToolCallDelta) -> _Open | None:
        """The call that a piece goes on with; ``None``: it begins one."""
        if piece.index is not None and (known := self._by_index.get(piece.index)) is not None:
            return None if _is_another(piece, known) else known
        last = self._calls[-1] if self._calls else None
        if piece.id:
            if piece.index is not None and piece.name:
                return None
            return next((one for one in self._calls if one.id == piece.id), None)
        if piece.name and (piece.index is not None or (last is not None and last.name)):
            return None
        return last


def _joined(parts: list[str]) -> str:
    """One text, in which no character is left cut in two."""
    text = "".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _is_another(piece: ToolCallDelta, known: _Open) -> bool:
    """Whether a piece with the number of a call begins another one: some servers number all alike."""
    if not piece.name or not known.name:
        return False
    if piece.id and known.id:
        return piece.id != known.id
    return piece.name != known.name and bool(known.arguments)


def asks_for_calls(options: ModelOptions) -> bool:
    """Whether a request offers functions, so that its answer may be calls."""
    places: list[Mapping[str, object]] = [options]
    if isinstance(beside := options.get("extra_body"), Mapping):
        places.append(cast("Mapping[str, object]", beside))
    return any(place.get(name) for place in places for name in ("tools", "functions"))
