"""What can be said of failures without a socket: their kinds, and secrets that stay secret."""

from __future__ import annotations

import json

import httpx
import pytest

from mellea_sc.backends.http.client import (
    translated,
)
from mellea_sc.backends.http.failures import (
    Advice,
    Failures,
    Secret,
)
from mellea_sc.core.errors import (
    BackendBusy,
    BackendRejected,
    ModelNotFound,
    NotAuthorized,
    StreamInterrupted,
)

ADVICE = Advice(unreachable="ADVICE", no_model="PULL IT", no_path="WRONG PATH", no_key="WRONG KEY")
FAILURES = Failures("server", ADVICE, (Secret("sk-very/secret"),))


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (400, ModelNotFound, "PULL IT"),
        (401, NotAuthorized, "WRONG KEY"),
        (403, ModelNotFound, "PULL IT"),
        (404, ModelNotFound, "PULL IT"),
        (429, BackendBusy, ""),
        (500, BackendRejected, ""),
        (503, BackendBusy, ""),
        (599, BackendRejected, ""),
    ],
)
def test_a_status_says_what_happened_and_what_to_do(
    status: int, kind: type[BackendRejected], advice: str
) -> None:
    body = json.dumps({"error": {"message": "the model 'm' does not exist"}})
    error = FAILURES.status(status, {}, body)
    assert type(error) is kind
    assert isinstance(error, BackendRejected)
    assert (error.status, error.body) == (status, body)
    assert "the model 'm' does not exist" in str(error)
    assert advice in str(error)


@pytest.mark.parametrize(
    "body", ["404 page not found", '{"detail": "Not Found"}', "<h1>the model T</h1>"]
)
def test_a_404_that_is_not_about_a_model_speaks_of_the_address(body: str) -> None:
    error = FAILURES.status(404, {}, body)
    assert type(error) is BackendRejected
    assert "WRONG PATH" in str(error)


@pytest.mark.parametrize(
    "echo", ["sk-very/secret", "sk-very%2Fsecret", r"sk-very\/secret", "Bearer sk-very/secret"]
)
def test_what_a_server_repeats_of_a_secret_is_in_no_error(echo: str) -> None:
    body = f'{{"error": {{"message": "bad key {echo}"}}}}'
    for error in (
        FAILURES.status(401, {}, body),
        FAILURES.status(302, {"location": f"http://x/?key={echo}"}, body),
        FAILURES.model({"message": body}),
        FAILURES.malformed(body),
        FAILURES.not_a_stream("text/html", "x", body),
        FAILURES.unreachable(echo),
        FAILURES.interrupted(echo),
        FAILURES.not_http(echo),
        FAILURES.unusable(echo),
    ):
        shown = f"{error} {error!r} {vars(error)}"
        assert "very" not in shown
        assert "***" in shown


def test_a_secret_at_the_edge_of_a_quotation_is_removed_before_the_cut() -> None:
    for length in range(480, 505):
        assert "sk-" not in FAILURES.quoted("x" * length + "sk-very/secret")


def test_a_secret_does_not_show_itself() -> None:
    assert "very" not in repr(FAILURES)


def test_a_long_body_is_quoted_shortly() -> None:
    error = FAILURES.status(500, {}, "x" * 100_000)
    assert len(str(error)) < 700
    assert isinstance(error, BackendRejected)
    assert len(error.body) <= 4000


def test_a_disconnect_that_a_client_calls_a_timeout_of_connecting_is_a_disconnect() -> None:
    aiohttp = pytest.importorskip("aiohttp")
    for cause in (
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientOSError(None, "Can not write request body for http://server"),
    ):
        error = httpx.ConnectTimeout("…")
        error.__cause__ = cause
        failure = translated(error, FAILURES)
        assert isinstance(failure, StreamInterrupted)
        assert "the server disconnected" in str(failure)
