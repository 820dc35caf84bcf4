"""Run as a script where the engine would be: does what its "model", a text file, tells it to.

``serve``        answers every request with one delta, which holds the request's body
``die-serving``  answers with one delta and is then killed by a signal
``cut``          answers with one delta and closes the connection
``stall``        answers with one delta and then with nothing
``exit``         says something and ends with status 3
``load``         never gets ready, and looks at nothing
``error KIND MESSAGE``  reports that it cannot start
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path


def report(directory: Path, **facts: str) -> None:
    draft = directory / "report.draft"
    draft.write_text(json.dumps(facts))
    draft.replace(directory / "report")


def serve(connection: socket.socket, behaviour: str, key: str) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(headers[b"content-length"]):
        body += connection.recv(65536)
    if headers[b"authorization"] != b"bearer " + key.lower().encode():
        connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        return
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
        b"Content-Length: 1000000\r\n\r\n"
        if behaviour == "cut"
        else b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    )
    delta = {"choices": [{"index": 0, "delta": {"content": body.decode()}, "finish_reason": None}]}
    connection.sendall(b"data: " + json.dumps(delta).encode() + b"\n\n")
    match behaviour:
        case "die-serving":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "stall":
            while connection.recv(65536):
                pass
        case "serve":
            end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            connection.sendall(b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n")
        case _:
            pass
    connection.close()


def main() -> None:
    directory = Path(sys.argv[1])
    config = json.loads((directory / "config").read_text())
    behaviour, *rest = Path(config["model"]).read_text().split(" ", 2)
    if behaviour == "exit":
        sys.stderr.write("something about tensors\n")
        sys.exit(3)
    if behaviour == "error":
        report(directory, error=rest[0], message=rest[1])
        sys.exit()
    if behaviour == "load":
        while True:
            time.sleep(60)
    if config["host"] == "127.0.0.1":
        server = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    else:
        server = socket.socket(socket.AF_UNIX)
        server.bind(config["host"])
        server.listen()
        url = "unix://"
    report(directory, url=url)

    def accept() -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=serve, args=(connection, behaviour, config["key"])).start()

    threading.Thread(target=accept).start()
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
