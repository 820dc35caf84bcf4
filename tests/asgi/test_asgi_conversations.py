"""The guide's application on real servers: two users, one session, and each sees its own turns only."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import cast

import attrs
import httpx
import pytest

from mellea_sc.testing.server import Answer, ModelServer, RecordedRequest

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guide" / "web.md"
PATIENCE = 60.0
"""Seconds, for hangs only."""
COMMANDS = {
    "uvicorn": ["-m", "uvicorn", "app:app", "--fd", "{fd}", "--log-level", "warning"],
    "hypercorn on trio": [
        *("-m", "hypercorn", "app:app", "--bind", "fd://{fd}", "--worker-class", "trio"),
    ],
}


@pytest.fixture
def model() -> Generator[ModelServer]:
    """Answers with all that the user has said, word by word; as no check lets pass where that is "bad"."""

    def answer(request: RecordedRequest) -> Answer:
        said = [message.content for message in request.messages if message.role == "user"]
        text = "As an AI, no." if said[-1] == "bad" else f"{' '.join(said)}."
        return Answer(tuple(re.findall(r"\S+\s*", text)), delay=0.02)

    with ModelServer.in_thread(answer) as server:
        yield server


@attrs.frozen
class Client:
    """Asks as one of the users."""

    url: str

    def asks(self, user: str, *questions: str) -> list[str]:
        """The answers, one after the other."""
        return [self._ask(user, question) for question in questions]

    def _ask(self, user: str, question: str) -> str:
        response = httpx.get(
            f"{self.url}/{user}/answer", params={"q": question}, timeout=PATIENCE
        ).raise_for_status()
        data = re.findall(r"^data: (.*)$", response.text, re.MULTILINE)
        return "".join(json.loads(one).get("text", "") for one in data)


@pytest.fixture(params=COMMANDS)
def served(
    request: pytest.FixtureRequest, model: ModelServer, tmp_path: Path
) -> Generator[tuple[Client, subprocess.Popen[str]]]:
    """The guide's application on a server."""
    [program] = re.findall(r"<!-- app.py -->\n```python\n(.*?)^```", GUIDE.read_text(), re.S | re.M)
    (tmp_path / "app.py").write_text(program)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        command = [part.format(fd=fd) for part in COMMANDS[cast("str", request.param)]]
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(GUIDE.parent.parent.parent), str(tmp_path)]),
                "MELLEA_SC_BACKEND": "openai",
                "MELLEA_SC_MODEL": "test-model",
                "OPENAI_BASE_URL": model.openai_url,
            },
            pass_fds=[fd],
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        port = listener.getsockname()[1]
    with process:
        try:
            yield Client(f"http://127.0.0.1:{port}"), process
        finally:
            # hypercorn has a worker process, which would outlive it
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_two_users_on_one_session_see_their_own_turns_only(
    served: tuple[Client, subprocess.Popen[str]],
) -> None:
    client, process = served
    with ThreadPoolExecutor(2) as users:
        ann = users.submit(client.asks, "ann", "I am Ann", "Hello", "Who am I?")
        bob = users.submit(client.asks, "bob", "I am Bob", "bad", "Who am I?")
        assert ann.result() == ["I am Ann.", "I am Ann Hello.", "I am Ann Hello Who am I?."]
        # what a check stopped is no turn
        assert bob.result() == ["I am Bob.", "", "I am Bob Who am I?."]
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err, err


def test_requests_of_one_user_at_the_same_time_take_turns_and_none_is_lost(
    served: tuple[Client, subprocess.Popen[str]],
) -> None:
    client, _ = served
    with ThreadPoolExecutor(4) as tabs:
        at_once = [tabs.submit(client.asks, "ann", word) for word in ("one", "two", "three")]
        other = tabs.submit(client.asks, "bob", "hello")
        lengths = sorted(len(call.result()[0].split()) for call in at_once)
        assert lengths == [1, 2, 3]
        assert other.result() == ["hello."]
    [last] = client.asks("ann", "four")
    assert sorted(last.removesuffix(".").split()) == ["four", "one", "three", "two"]
