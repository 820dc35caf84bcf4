"""Whose turn it is in a conversation.

A conversation that remembers can only go on where the turn before has ended. Requests take their place
in the line when they are made, in that order, and wait for it in their own task. A turn that fails or
is cancelled leaves the line and the conversation as if it had never been.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Protocol

import anyio
import attrs

from mellea_sc.core.base import Context
from mellea_sc.core.errors import UsageError

__all__ = ["Conversation", "Turn"]

log: Final = logging.getLogger("mellea_sc")

OVERLAP: Final = (
    "Not using a SimpleContext with asynchronous requests could cause unexpected results due to "
    "stale contexts. Ensure you await between requests."
)


class Turn(Protocol):
    """One request's part in a conversation: inside its block it has the conversation before it."""

    async def __aenter__(self) -> Context:
        """Wait for the turns before this one."""
        ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Let the next turn begin."""
        ...

    def commit(self, ctx: Context) -> None:
        """The turn has succeeded: this is the conversation now."""
        ...

    def give_up(self) -> None:
        """Leave the line without having begun."""
        ...


class Conversation:
    """The conversation of a session, and the line of requests that want to go on with it.

    Args:
        ctx: What was said so far.
        in_order: Whether requests wait for one another; otherwise each starts from what is there.
    """

    def __init__(self, ctx: Context, *, in_order: bool) -> None:
        self.ctx = ctx
        self._in_order = in_order
        self._line: deque[_QueuedTurn] = deque()

    def check_outside(self) -> None:
        """Raise where waiting for the turns in line would be waiting for the one that waits.

        Raises:
            UsageError: this is called from inside a turn of this conversation, by a validator, say.
        """
        if any(turn in self._line for turn in _around.get()):
            raise UsageError(
                "a turn of this conversation cannot wait for another one, which would come after it: "
                "in a validator use the backend that it is given, or another session"
            )

    def take_turn(self, relieve: Callable[[], None]) -> Turn:
        """Take the next place in the line.

        Args:
            relieve: Called when another request waits for this one: it may be waiting for a reader.

        Raises:
            UsageError: this is called from inside a turn of this conversation.
        """
        self.check_outside()
        if not self._in_order:
            return _FreeTurn(self)
        turn = _QueuedTurn(self, relieve)
        if self._line:
            log.warning(OVERLAP)
            for earlier in self._line:
                earlier.relieve()
        self._line.append(turn)
        self._line[0].head.set()
        return turn

    async def settled(self) -> Context:
        """The conversation, when the turns that are in line now have ended.

        Raises:
            UsageError: this is called from inside a turn of this conversation.
        """
        self.check_outside()
        if self._line:
            turn = self._line[-1]
            for earlier in self._line:
                earlier.relieve()
            await turn.left.wait()
        return self.ctx

    def leave(self, turn: _QueuedTurn) -> None:
        """A turn has ended or was given up."""
        if turn in self._line:
            self._line.remove(turn)
            if self._line:
                self._line[0].head.set()
        turn.left.set()


@attrs.frozen
class _FreeTurn:
    """A turn that waits for no other, and that no other waits for."""

    _conversation: Conversation

    async def __aenter__(self) -> Context:
        return self._conversation.ctx

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        return

    def commit(self, ctx: Context) -> None:
        self._conversation.ctx = ctx

    def give_up(self) -> None:
        """Nobody waits for it."""


@attrs.define(eq=False)
class _QueuedTurn:
    _conversation: Conversation
    relieve: Callable[[], None]
    head: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    left: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _token: Token[tuple[_QueuedTurn, ...]] = attrs.field(init=False)

    async def __aenter__(self) -> Context:
        try:
            await self.head.wait()
        except BaseException:
            self._conversation.leave(self)
            raise
        self._token = _around.set((*_around.get(), self))
        return self._conversation.ctx

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        _around.reset(self._token)
        self._conversation.leave(self)

    def commit(self, ctx: Context) -> None:
        self._conversation.ctx = ctx

    def give_up(self) -> None:
        self._conversation.leave(self)


_around: Final[ContextVar[tuple[_QueuedTurn, ...]]] = ContextVar("mellea_sc_turns", default=())
"""The turns that the calling task is part of, outermost first."""
