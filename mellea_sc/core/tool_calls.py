"""Tool calls, and how they are assembled from the pieces of a stream.

In OpenAI's protocol each piece has its call's index, and the first piece also has the id and the name. Servers
differ: some send no index, some send 0 for every call, some repeat the name or send it last, and some count up for
each piece. So a piece belongs to the call with its index, unless the id or the name contradicts that; a piece with
neither id nor name continues the last call; and no piece is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import attrs

from mellea_sc.core.model_options import ModelOptions


@attrs.frozen
class ToolCall:
    """A call of a function that a model requests.

    Args:
        id: The server's id of the call, for the answer to it; empty if there is none.
        name: The function's name.
        arguments: The arguments as the model has written them: usually JSON, but that is not guaranteed.
    """

    id: str
    name: str
    arguments: str


@attrs.frozen
class ToolCallDelta:
    """The next piece of a call.

    Args:
        id: The call's id, if this piece has it.
        name: The function's name, or a part of it, if this piece has it.
        arguments: New text of the arguments.
        index: The index of the call that the piece belongs to, if the server sends one.
    """

    id: str = ""
    name: str = ""
    arguments: str = ""
    index: int | None = None


@attrs.define(eq=False)
class _Open:
    """A call of which more pieces may come."""

    id: str = ""
    name: str = ""
    arguments: list[str] = attrs.field(factory=list[str])


@attrs.define(eq=False, repr=False)
class ToolCallParts:
    """The tool calls of one answer, assembled from their pieces."""

    _calls: list[_Open] = attrs.field(factory=list[_Open], init=False)
    _by_index: dict[int, _Open] = attrs.field(factory=dict[int, _Open], init=False)

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
        """The calls so far, in the order of their first pieces."""
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
        """The call that a piece continues; ``None``: it begins a new one."""
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
    """The parts joined; a surrogate pair that was cut in two becomes one character again."""
    text = "".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _is_another(piece: ToolCallDelta, known: _Open) -> bool:
    """Whether a piece begins another call although it has the index of this one, as some servers send it."""
    if not piece.name or not known.name:
        return False
    if piece.id and known.id:
        return piece.id != known.id
    return piece.name != known.name and bool(known.arguments)


def asks_for_calls(options: ModelOptions) -> bool:
    """Whether a request offers functions, so that tool calls are a valid answer."""
    places: list[Mapping[str, object]] = [options]
    if isinstance(beside := options.get("extra_body"), Mapping):
        places.append(cast("Mapping[str, object]", beside))
    return any(place.get(name) for place in places for name in ("tools", "functions"))
