"""``mellea-sc doctor``: what it finds, what it advises, and the exit status."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import pytest
from click.testing import Result

from mellea_sc.core.errors import MissingExtra
from mellea_sc.testing.server import Answer, ModelServer

Invoke: TypeAlias = Callable[..., Result]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer.in_thread(Answer(), models=("granite4:micro", "other")) as server:
        yield server


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingExtra("it needs xllamacpp: pip install 'mellea_sc[local]'")

    monkeypatch.setattr("mellea_sc.cli.doctor.require_engine", missing)


@pytest.fixture(autouse=True)
def no_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{port}")


def findings(done: Result) -> dict[str, dict[str, object]]:
    return {finding["name"]: finding for finding in json.loads(done.stdout)["backends"]}


def test_it_names_each_backend_and_what_to_do(invoke: Invoke, loop: str) -> None:
    done = invoke("doctor", "--loop", loop)
    assert "✗ local   it needs xllamacpp: pip install 'mellea_sc[local]'" in done.stdout
    assert "ollama serve" in done.stdout
    assert "✗ openai  not set up: set OPENAI_BASE_URL" in done.stdout
    assert "anyio" in done.stdout.splitlines()[0]
    assert "\x1b" not in done.stdout


def test_it_is_status_0_when_the_chosen_one_can_be_used(
    invoke: Invoke, server: ModelServer, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setenv("MELLEA_SC_BACKEND", "ollama")
    monkeypatch.setenv("OLLAMA_HOST", server.ollama_url)
    done = invoke("doctor", "--json", "--loop", loop)
    assert findings(done)["ollama"]["usable"] is True
    assert findings(done)["ollama"]["models"] == ["granite4:micro", "other"]
    assert json.loads(done.stdout)["chosen"] == {
        "name": "ollama",
        "why": "MELLEA_SC_BACKEND says so",
        "usable": True,
    }
    assert (done.exit_code, done.stderr) == (0, "")


def test_it_is_status_3_when_the_chosen_one_cannot_be_used(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MELLEA_SC_BACKEND", "ollama")
    done = invoke("doctor")
    assert done.exit_code == 3
    assert "A session gets ollama, which cannot be used: MELLEA_SC_BACKEND" in done.stdout


def test_a_model_that_the_server_lacks_is_told_with_the_command_that_fetches_it(
    invoke: Invoke, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server.ollama_url)
    monkeypatch.setenv("MELLEA_SC_MODEL", "missing")
    done = invoke("doctor")
    assert "without missing: ollama pull missing" in done.stdout
    assert "it has granite4:micro, other" in done.stdout


def test_a_key_is_used_and_never_shown(
    invoke: Invoke, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret-key")
    monkeypatch.setenv("MELLEA_SC_MODEL", "other")
    told, as_json = invoke("doctor"), invoke("doctor", "--json")
    assert findings(as_json)["openai"]["usable"] is True
    assert "OPENAI_API_KEY is set" in told.stdout
    assert "s3cret" not in told.output + as_json.output
    assert {r.headers["authorization"] for r in server.requests} == {"Bearer s3cret-key"}


def test_an_openai_server_without_a_model_named_is_not_usable_yet(
    invoke: Invoke, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
    monkeypatch.setenv("MELLEA_SC_BACKEND", "openai")
    done = invoke("doctor", "--json")
    assert "MELLEA_SC_MODEL" in str(findings(done)["openai"]["says"])
    assert done.exit_code == 3


def test_a_server_that_never_answers_does_not_hold_it_up(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setattr("mellea_sc.cli.doctor.PROBE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{silent.getsockname()[1]}")
        done = invoke("doctor", "--json", "--loop", loop)
    assert "no answer within 0.2 s" in str(findings(done)["ollama"]["says"])


def test_a_proxy_that_never_answers_is_told_from_its_server(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setattr("mellea_sc.cli.doctor.PROBE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OPENAI_BASE_URL", "https://model.example/v1")
        found = findings(invoke("doctor", "--json", "--loop", loop))["openai"]
    assert found["problem"] == "proxy"
    assert "HTTPS_PROXY: no answer within 0.2 s" in str(found["says"])


def test_something_else_at_the_address_is_told_from_a_model_server(
    invoke: Invoke, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/elsewhere")
    done = invoke("doctor", "--json")
    assert "It mostly ends in /v1" in str(findings(done)["openai"]["says"])


@pytest.mark.parametrize(
    ("program", "usable", "says"),
    [
        ("pass", True, "SmolLM2-135M-Instruct, to be fetched at first use"),
        ("raise ImportError('libgomp.so.1: not found')", False, "apt-get install libgomp1"),
        ("import time; time.sleep(60)", False, "takes more than"),
    ],
)
def test_the_engine_is_tried_in_a_process_of_its_own(
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    loop: str,
    program: str,
    usable: bool,
    says: str,
) -> None:
    monkeypatch.setattr("mellea_sc.cli.doctor.require_engine", lambda: None)
    monkeypatch.setattr("mellea_sc.cli.doctor._IMPORT", program)
    monkeypatch.setattr("mellea_sc.cli.doctor.pip_command", list)
    if "sleep" in program:
        monkeypatch.setattr("mellea_sc.cli.doctor.PROBE", 0.3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = invoke("doctor", "--json", "--loop", loop)
    assert findings(done)["local"]["usable"] is usable
    assert says in str(findings(done)["local"]["says"])


def test_a_name_that_is_no_backend_is_told(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELLEA_SC_BACKEND", "nope")
    done = invoke("doctor")
    assert done.exit_code == 3
    assert "there is no backend called 'nope'" in done.stdout


def test_headers_come_from_a_file_and_are_never_shown(
    invoke: Invoke, server: ModelServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
    monkeypatch.setenv("MELLEA_SC_MODEL", "other")
    file = tmp_path / "headers"
    file.write_text("# of the gateway\n\nX-Team: t0ken:x\n")
    done = invoke("doctor", "--json", "--headers-from", str(file))
    assert findings(done)["openai"]["usable"] is True
    assert {r.headers.get("x-team") for r in server.requests} == {"t0ken:x"}
    assert "t0ken" not in done.output
    for wrong in ("no colon, t0ken\n", "Bad Name: t0ken\n"):
        file.write_text(wrong)
        done = invoke("doctor", "--headers-from", str(file))
        assert "header" in done.output
        assert "t0ken" not in done.output
    assert invoke("doctor", "--headers-from", str(tmp_path / "none")).exit_code == 2


@pytest.mark.parametrize(
    ("answer", "problem", "says"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", "key", "OPENAI_API_KEY"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "path", "mostly ends in /v1"),
        (b"HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n", "path", "redirects"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", "path", "html"),
        (b'HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\n{"error": "Unexpected endpoint or method"} ', "path", "endpoint"),
        (b'HTTP/1.1 200 OK\r\ncontent-length: 38\r\n\r\n{"code": 500, "msg": "not here", "":0}', "path", "not here"),
        (b'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}', "path", "mostly ends in /v1"),
        (b'HTTP/1.1 200 OK\r\ncontent-length: 33\r\n\r\n[{"id": "other"}, {"id": "more"}]', "model", "MODEL"),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", "server", "500"),
        (b'HTTP/1.1 200 OK\r\ncontent-length: 29\r\n\r\n{"data": [{"id": "other x"}]}', "model", "MODEL"),
    ],
)  # fmt: skip
def test_it_tells_what_is_wrong_apart(
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    loop: str,
    answer: bytes,
    problem: str,
    says: str,
) -> None:
    monkeypatch.setenv("MELLEA_SC_MODEL", "mine")
    with answering(answer) as port:
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}")
        found = findings(invoke("doctor", "--json", "--loop", loop))["openai"]
    assert found["problem"] == problem
    assert says in str(found["says"])


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("HTTPS_PROXY", "http://me:hidden@127.0.0.1:9", "proxy"),
        ("HTTPS_PROXY", "http://me:hidden@h:x", "setting"),
        ("SSL_CERT_FILE", "/hidden", "setting"),
        ("OPENAI_BASE_URL", "http://me:hidden@h:x", "setting"),
    ],
)
def test_it_names_the_variable_that_is_wrong_and_hides_what_is_in_it(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://model.invalid")
    monkeypatch.setenv(name, value)
    done = invoke("doctor", "--json")
    found = findings(done)["openai"]
    assert found["problem"] == problem
    assert name in str(found["says"])
    assert "hidden" not in done.output


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that gives every request the same answer; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    conn, _ = listener.accept()
                    with conn:
                        conn.recv(65536)
                        conn.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(("model", "usable"), [(None, False), ("gone", False), ("there", True)])
def test_a_server_that_answers_is_not_crossed_out_where_a_models_name_is_missing(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, model: str | None, usable: bool
) -> None:
    monkeypatch.setenv("MELLEA_SC_BACKEND", "openai")
    if model is not None:
        monkeypatch.setenv("MELLEA_SC_MODEL", model)
    with ModelServer.in_thread(Answer("x"), models=["there"]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
        monkeypatch.setenv("OLLAMA_HOST", server.ollama_url)
        done = invoke("doctor")
        found = json.loads(invoke("doctor", "--json").stdout)
    mark = "✓" if usable else "!"
    assert re.findall(r"^(\S) (?:ollama|openai)\b", done.stdout, re.MULTILINE) == [mark, mark]
    assert ("which cannot be used yet" in done.stdout) is not usable
    assert "model_id" not in done.stdout
    assert done.exit_code == (0 if usable else 3)
    assert [one["reached"] for one in found["backends"][1:]] == [not usable] * 2
