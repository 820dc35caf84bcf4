"""One connection of the loopback model server: requests in, scripted answers out, a watch on the client."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, TypeAlias

import anyio
import anyio.abc
import attrs
import h11

from mellea_sc.testing._server.values import Answer, Ended, RecordedRequest
from mellea_sc.testing._server.wire import Wire

__all__ = ["Connection", "Reply"]

_BATCH: Final = 64
"""Deltas that are written at once when there is no delay between them."""
_PIECE: Final = 64 * 1024


@attrs.frozen
class Reply:
    """An answer in the protocol that was asked for."""

    answer: Answer
    wire: Wire


Route: TypeAlias = Callable[[RecordedRequest], Reply]


class Connection:
    """Serves the requests of one client, one after another.

    Args:
        stream: The connection.
        number: Counts connections.
        route: Records a request and says what to answer.
    """

    def __init__(self, stream: anyio.abc.SocketStream, number: int, route: Route) -> None:
        self._stream = stream
        self._number = number
        self._route = route
        self._http = h11.Connection(h11.SERVER)
        self._said_all = False

    async def serve(self) -> None:
        """Serve until either side closes."""
        try:
            while (record := await self._receive()) is not None:
                await self._exchange(record, self._route(record))
                if record.ended != "complete" or self._http.our_state is not h11.DONE:
                    break
                self._http.start_next_cycle()
        except (anyio.BrokenResourceError, anyio.EndOfStream, h11.RemoteProtocolError):
            pass  # the client went away, or talks nonsense
        finally:
            with anyio.move_on_after(1, shield=True):
                await self._stream.aclose()

    async def _receive(self) -> RecordedRequest | None:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._stream.receive())
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return RecordedRequest(
                    head.method.decode(),
                    head.target.decode().partition("?")[0],
                    {name.decode(): value.decode("latin-1") for name, value in head.headers},
                    bytes(body),
                    self._number,
                    anyio.current_time(),
                )
            else:
                return None

    async def _exchange(self, record: RecordedRequest, reply: Reply) -> None:
        self._said_all = False
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, record, tasks.cancel_scope)
                try:
                    record.end(await self._play(record, reply))
                except anyio.BrokenResourceError:
                    self._client_left(record)
                tasks.cancel_scope.cancel()
        finally:
            record.end("server_closed")

    async def _watch(self, record: RecordedRequest, answering: anyio.CancelScope) -> None:
        # What else a client may send belongs to its next request.
        try:
            while True:
                self._http.receive_data(await self._stream.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self._client_left(record)
            answering.cancel()

    def _client_left(self, record: RecordedRequest) -> None:
        record.end("complete" if self._said_all else "client_closed")

    async def _play(self, record: RecordedRequest, reply: Reply) -> Ended:
        answer, wire = reply.answer, reply.wire
        await anyio.sleep(answer.slow_headers)
        if answer.status != HTTPStatus.OK or answer.body is not None:
            return await self._play_body(answer, wire)
        await self._send(self._head(answer, wire.content_type))
        await anyio.sleep(answer.first_delay)
        for thought in answer.reasoning:
            await self._send(h11.Data(wire.reasoning(thought)))
            await anyio.sleep(answer.delay)
        count = len(answer.deltas)
        stall, cut, malformed, error = (
            None if position is None else min(position, count)
            for position in (
                answer.stall_after,
                answer.cut_after,
                answer.malformed_after,
                answer.error_after,
            )
        )
        while True:
            sent = record.deltas_sent
            if sent == malformed:
                await self._send(h11.Data(wire.malformed()))
            if sent == error:
                return await self._finish(wire.error(answer.error or "the script wants an error"))
            if sent == cut:
                return self._cut(answer)
            if sent == stall:
                await anyio.sleep_forever()
            if sent == count:
                break
            if sent and answer.delay:
                await anyio.sleep(answer.delay)
            ends = [sent + (1 if answer.delay else _BATCH), count]
            ends += [stop for stop in (stall, cut, malformed, error) if stop is not None]
            end = min(stop for stop in ends if stop > sent)
            record.deltas_sent = end
            await self._send(*(h11.Data(wire.delta(text)) for text in answer.deltas[sent:end]))
        if answer.tool_calls:
            await self._send(h11.Data(wire.calls(answer.tool_calls)))
        if answer.huge_line is not None:
            await self._send_huge_line(answer.huge_line, wire)
        if answer.half_close:
            await self._stream.send_eof()
            await anyio.sleep_forever()
        return await self._finish(
            b"" if answer.omit_end else wire.end(answer.finish_reason, answer.usage)
        )

    async def _play_body(self, answer: Answer, wire: Wire) -> Ended:
        body = answer.body
        if body is None:
            body = wire.error_body(answer.error or "the script wants an error")
        content_type = wire.content_type if answer.status == HTTPStatus.OK else "application/json"
        await self._send(self._head(answer, content_type))
        return await self._finish(body)

    def _head(self, answer: Answer, content_type: str) -> h11.Response:
        headers = {"content-type": answer.content_type or content_type}
        if answer.retry_after is not None:
            headers["retry-after"] = str(answer.retry_after)
        headers["transfer-encoding"] = "chunked"
        return h11.Response(
            status_code=answer.status, headers=list((headers | dict(answer.headers)).items())
        )

    async def _send_huge_line(self, size: int, wire: Wire) -> None:
        beginning = wire.huge()
        await self._send(h11.Data(beginning))
        for start in range(len(beginning), size, _PIECE):
            await self._send(h11.Data(b"x" * min(_PIECE, size - start)))
        await self._send(h11.Data(b"\n\n"))

    async def _finish(self, rest: bytes) -> Ended:
        # From here on the client has all it needs, and may close before the last send returns.
        self._said_all = True
        await self._send(h11.Data(rest), h11.EndOfMessage())
        return "complete"

    def _cut(self, answer: Answer) -> Ended:
        if answer.reset:
            raw = self._stream.extra(anyio.abc.SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return "cut"

    async def _send(self, *events: h11.Event) -> None:
        await self._stream.send(b"".join(self._http.send(event) or b"" for event in events))
