"""A model server on loopback, in a process of its own: speaks just enough of both protocols.

Made with plain asyncio and the standard library, so that it favours nobody. It answers every request
with the same deltas, notes when each was handed to the socket and when the client went away, and is
asked for these notes over its own stdin: ``mark`` notes the moment, ``report`` prints everything.
All times are those of ``time.monotonic()``, which is one clock for all processes.
"""

import asyncio
import json
import sys
import time
from contextlib import suppress

HEAD = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"


def openai_event(text, finish=None):
    delta = {} if finish else {"role": "assistant", "content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    said = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "bench",
        "choices": [choice],
    }
    return f"data: {json.dumps(said)}\n\n".encode()


def ollama_event(text, finish=None):
    said = {
        "model": "bench",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": text},
        "done": finish is not None,
    }
    if finish:
        said |= {"done_reason": finish, "prompt_eval_count": 8, "eval_count": 8}
    return f"{json.dumps(said)}\n".encode()


PROTOCOLS = {
    "/v1/chat/completions": (b"text/event-stream", openai_event, b"data: [DONE]\n\n"),
    "/api/chat": (b"application/x-ndjson", ollama_event, b""),
}

KNOWN = {"models": [{"name": "bench", "model": "bench"}], "data": [{"id": "bench"}]}
"""What is said to whoever asks which models there are."""


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


class Server:
    """Answers with the same deltas each time.

    Args:
        texts: The deltas.
        pace: Seconds before each delta; 0 gives every connection a turn after each delta.
        stamp: Send the moment of sending, in nanoseconds, as the delta instead.
    """

    def __init__(self, texts, pace=0.0, stamp=False):
        self.texts = texts
        self.pace = pace
        self.stamp = stamp
        self.ready = {
            path: [chunk(event(text)) for text in texts]
            for path, (_, event, _) in PROTOCOLS.items()
        }
        self.requests = []
        self.marks = []
        self.connections = set()

    async def serve(self, reader, writer):
        note = {"sent_at": [], "closed_at": None, "ended": None}
        self.requests.append(note)
        self.connections.add(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ),
                0,
            )
            await reader.readexactly(length)
            if path not in PROTOCOLS:
                said = chunk(json.dumps(KNOWN).encode())
                writer.write(HEAD % (b"200 OK", b"application/json") + said + chunk(b""))
            else:
                watch = asyncio.ensure_future(self.watch(reader, note, asyncio.current_task()))
                await self.play(writer, path, note)
                watch.cancel()
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            note["ended"] = note["ended"] or "closed by the client"
            note["closed_at"] = note["closed_at"] or time.monotonic()
        finally:
            self.connections.discard(asyncio.current_task())
            writer.close()

    async def watch(self, reader, note, serving):
        with suppress(ConnectionError):
            await reader.read()  # ends when the client closes
        note["closed_at"] = time.monotonic()
        serving.cancel()

    async def play(self, writer, path, note):
        content_type, event, end = PROTOCOLS[path]
        writer.write(HEAD % (b"200 OK", content_type))
        for data in self.ready[path]:
            await asyncio.sleep(self.pace)
            if self.stamp:
                data = chunk(event(f"{time.monotonic_ns()} "))
            writer.write(data)
            note["sent_at"].append(time.monotonic())
            if writer.transport.get_write_buffer_size() > 65536:
                await writer.drain()
        writer.write(chunk(event("", "stop") + end) + chunk(b""))
        await writer.drain()
        note["ended"] = "complete"

    def command(self, line):
        if line == b"mark":
            sent = sum(len(note["sent_at"]) for note in self.requests)
            self.marks.append({"at": time.monotonic(), "sent": sent})
        elif line == b"report":
            print(json.dumps({"requests": self.requests, "marks": self.marks}), flush=True)


async def main(job):
    server = Server(**job)
    stdin = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=4096) as listener:
        print(listener.sockets[0].getsockname()[1], flush=True)
        while line := (await stdin.readline()).strip():
            server.command(line)
        for connection in server.connections:
            connection.cancel()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
