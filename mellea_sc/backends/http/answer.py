"""Reads the answer in a response: from the bytes of its body to deltas, until the answer is complete."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from mellea_sc.backends.http.ending import LINGER, Ending
from mellea_sc.backends.http.json_values import parse_object
from mellea_sc.backends.http.surrogates import joined
from mellea_sc.backends.http.translation import client_errors
from mellea_sc.core.answer_prefix import EchoFilter
from mellea_sc.core.backend import Delta
from mellea_sc.core.errors import BackendProtocolError, MelleaError

if TYPE_CHECKING:
    from mellea_sc.backends.http.backend import HttpBackend
    from mellea_sc.backends.http.exchange import Response

__all__ = ["Answer"]


class Answer:
    """The answer in one response.

    Args:
        backend: The backend, which parses the protocol.
        response: The response.
        echo: Removes a repeated prefix; ``None``: the answer has no prefix.
        timeout: The seconds after which the reader of the deltas gives up waiting for one.
    """

    __slots__ = ("_backend", "_echo", "_ending", "_response", "_timeout")

    def __init__(
        self, backend: HttpBackend, response: Response, echo: EchoFilter | None, timeout: float
    ) -> None:
        self._backend = backend
        self._response = response
        self._echo = echo
        self._timeout = timeout
        self._ending = Ending()

    async def deltas(self) -> AsyncGenerator[Delta]:
        """The deltas, until the answer is complete; see :mod:`~mellea_sc.backends.http.ending`.

        Raises:
            BackendError: the answer is malformed, reports an error, or has ended before it was complete.
        """
        response, ending, echo = self._response, self._ending, self._echo
        parse, splitter = self._backend.parse, self._backend.splitter()
        half, half_of_thoughts = "", ""
        refused: BackendProtocolError | None = None
        text, words, first, ended = "", "", "", False
        while not ended:
            try:
                straight = response.straight
                data = await (response.read() if straight is None else straight())
            except client_errors() as error:
                data = response.end_by(error)
            ended = not data
            for text in splitter.feed(data) if data else splitter.close():
                try:
                    delta = parse(text)
                except BackendProtocolError as error:
                    if not ended and ending.grace is None:
                        raise await self._refusal(text, error) from None
                    refused, words = error, text  # cut off in the middle, or not part of the answer
                    continue
                if delta is None:
                    if not ending.has_begun:
                        raise self._backend.failures.interrupted("it ended without an answer")
                    ending.end()
                else:
                    if refused is not None and (delta.text or delta.tool_calls):
                        raise refused  # it was a part of the answer
                    if delta.finish_reason is not None or not ending.is_amid:
                        if delta.text or delta.tool_calls:
                            if first and self._backend.repeats(first, text):
                                delta = Delta("", delta.finish_reason, delta.usage)
                            first = first or text
                        ending.take(delta)
                    if half or not delta.text.isascii():
                        delta.text, half = joined(half + delta.text)
                    if echo is not None:
                        delta.text = echo.feed(delta.text)
                    if delta.reasoning:
                        delta.reasoning, half_of_thoughts = joined(
                            half_of_thoughts + delta.reasoning
                        )
                    yield delta
                    if delta.finish_reason is not None and self._backend.ends_with_finish_reason:
                        ending.end()
                if (
                    ending.grace is not None or response.deadline is not None
                ) and self._bound_the_rest():
                    ended = True
                    break
        if not ending.is_whole or (response.lost is not None and ending.grace is None):
            raise self._unfinished(splitter.unread or words, text)
        rest = "\ufffd" if half else ""
        if echo is not None:
            rest = echo.feed(rest) + echo.end()
        if rest or half_of_thoughts:
            yield Delta(rest, reasoning="\ufffd" if half_of_thoughts else "")

    def _bound_the_rest(self) -> bool:
        """Set a deadline for reading on if the answer may be complete; true: stop reading now.

        If the answer has gone on after all, the deadline is removed.
        """
        grace = self._ending.grace
        if grace is None:
            self._response.go_on()
            return False
        self._response.finish(min(grace, self._timeout / 2))
        return grace == LINGER

    async def _refusal(self, text: str, error: BackendProtocolError) -> BackendProtocolError:
        """The error for a text that is not part of an answer."""
        if self._ending.has_begun or self._response.media_type in self._backend.media_types:
            return error
        return self._not_a_stream(await self._response.beginning(text))

    def _not_a_stream(self, body: str) -> BackendProtocolError:
        wanted = self._backend.media_types[0]
        return self._backend.failures.not_a_stream(self._response.media_type, wanted, body)

    def _unfinished(self, words: str, last: str) -> MelleaError:
        """The error for a response that ended before its answer was complete.

        Args:
            words: An error text in it, if there is one.
            last: Its last text.
        """
        failures, lost = self._backend.failures, self._response.lost
        if words.lstrip().startswith(("{", "[", "data:")):
            words = ""  # half a delta
        if words and not self._ending.has_begun:
            if self._response.media_type in self._backend.media_types:
                return failures.malformed(words)
            return self._not_a_stream(words)
        if lost is not None:
            return lost
        if not words and not self._ending.has_begun:
            event = parse_object(last) or {}
            words = "" if event.get("choices") else last  # an error in the server's own form
        more = f", and with {words!r}" if words else ""
        return failures.interrupted(f"it ended before its last delta{more}")
