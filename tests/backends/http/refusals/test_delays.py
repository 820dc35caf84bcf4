"""What a server says about the same request later: every form of when, and what no waiting changes."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc.backends.http.failures import Advice, Failures
from mellea_sc.backends.http.refusals import delay_in, is_temporary, status_in
from mellea_sc.core.errors import BackendBusy, BackendError, BackendRejected, ModelError

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
FAILURES = Failures("server", Advice(unreachable="", no_model="", no_path="", no_key=""))

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "details", "code", "type", "metadata"])
            | st.text(),
            inner,
        )
    ),
    max_leaves=10,
)


# --- when ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        (" 3 ", 3.0),
        ("0", 0.0),
        ("0.05", 0.05),
        ("-1", 0.0),
        ("30s", 30.0),
        ("3, 3", 3.0),
        ("1700000020", 20.0),
        ("1700000020500", 20.5),
        ("", None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("9" * 5000, None),
        ("Tue, 14 Nov 2023 22:14:50 GMT", 90.0),
        ("Tue, 14 Nov 2023 22:14:50 -0000", 90.0),
        ("Tuesday, 14-Nov-23 22:14:50 GMT", 90.0),  # RFC 850's, which recipients must know
        ("Tue Nov 14 22:14:50 2023", 90.0),  # asctime's, too
        ("2023-11-14T22:14:50Z", 90.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("Tue, 99 Foo 2023 22:14:50 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert delay_in(429, {"retry-after": value}, now=NOW) == seconds
    assert delay_in(502, {"retry-after": value}, now=NOW) == seconds


def test_a_date_counts_by_the_servers_clock() -> None:
    headers = {
        "date": "Thu, 01 Jan 1970 01:00:00 GMT",
        "retry-after": "Thu, 01 Jan 1970 01:00:07 GMT",
    }
    assert delay_in(429, headers, now=NOW) == 7


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "800", "retry-after": "1"}, 0.8),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "2", "x-ratelimit-reset-requests": "6m0s"}, 2.0),
        # OpenAI's and Groq's forms
        ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-requests": "1d2h3m4.5s"}, 93784.5),
        ({"x-ratelimit-reset-tokens": "2m59.56s"}, 179.56),
        ({"x-ratelimit-reset-tokens": "7.66s"}, 7.66),
        # of several limits, the one that is used up; they stand on every answer
        (
            {
                "x-ratelimit-remaining-requests": "14370",
                "x-ratelimit-reset-requests": "2m59.56s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "7.66s",
            },
            7.66,
        ),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "5s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "7s",
            },
            7.0,
        ),
        ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "1h"}, None),
        # OpenRouter's, GitHub's, the IETF's and Anthropic's
        ({"x-ratelimit-reset": "1700000020500"}, 20.5),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000020"}, 20.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "30"}, 30.0),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:40Z",
            },
            20.0,
        ),
        ({"x-ratelimit-reset-requests": "1 fortnight"}, None),
        ({}, None),
    ],
)
def test_the_other_headers_say_when_too(headers: dict[str, str], seconds: float | None) -> None:
    assert delay_in(429, headers, now=NOW) == (None if seconds is None else pytest.approx(seconds))


def test_when_limits_are_reset_matters_only_where_they_are_what_it_is_about() -> None:
    assert delay_in(500, {"x-ratelimit-reset-requests": "6m0s"}) is None


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ([{"error": {"code": 429, "details": [{}, {"retryDelay": "26s"}]}}], 26.0),  # Google's
        ({"error": {"metadata": {"headers": {"X-RateLimit-Reset": "1700000020500"}}}}, 20.5),
        ({"error": {"metadata": {"headers": {"Retry-After": 12}}}}, 12.0),  # OpenRouter's
        ({"error": {"message": "slow down"}}, None),
        ({"error": {"details": "none"}}, None),
        # OpenAI's and Groq's words, Azure's, Google's
        ({"error": {"message": "Limit 200, Used 164. Please try again in 1.152s. Visit …"}}, 1.152),
        ({"error": {"message": "Please try again in 6m0s."}}, 360.0),
        ({"error": {"message": "Please try again in 250ms."}}, 0.25),
        ({"error": {"message": "Please retry after 22 seconds."}}, 22.0),
        ({"error": "Please retry in 41.5s."}, 41.5),
        ("<p>Try again in 1 minute, 5 seconds</p>", 65.0),
        ({"error": {"message": "retry in a while, not in 5"}}, None),
    ],
)
def test_some_say_it_in_the_body(answer: object, seconds: float | None) -> None:
    assert delay_in(429, {}, answer, now=NOW) == seconds


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "date", "x-ratelimit-reset"]), st.text()
    ),
    JSON,
)
def test_whatever_comes_is_a_time_or_none(headers: dict[str, str], answer: object) -> None:
    seconds = delay_in(429, headers, answer)
    assert seconds is None or seconds >= 0
    assert is_temporary(429, headers, answer) in (True, False)
    status = status_in(answer)
    assert status is None or 400 <= status < 600


# --- whether -------------------------------------------------------------------------------------


def error(message: str = "", **fields: object) -> Mapping[str, object]:
    return {"error": {"message": message, **fields}}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520, 529])
def test_these_may_pass(status: int) -> None:
    assert is_temporary(status, {}, error("overloaded"))
    assert is_temporary(status, {}, "overloaded")


@pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 409, 413, 422])
def test_these_would_be_refused_again(status: int) -> None:
    assert not is_temporary(status, {"retry-after": "1"}, error("overloaded"))


def test_a_server_may_say_that_it_is_in_vain() -> None:
    assert not is_temporary(503, {"x-should-retry": "false"}, error("overloaded"))
    assert is_temporary(503, {"x-should-retry": "true"}, error("overloaded"))


@pytest.mark.parametrize(
    "answer",
    [
        error("You exceeded your current quota", type="insufficient_quota"),  # OpenAI
        error("…", code="insufficient_quota"),
        error("You exceeded your current quota, please check your plan and billing details."),
        error("Your account is not active", type="billing_not_active"),
        error("Billing hard limit has been reached", code="billing_hard_limit_reached"),
        error("The usage limit has been reached", type="usage_limit_reached"),
        error("Your account is suspended", type="exceeded_current_quota_error"),  # Moonshot
        error("Insufficient Balance", type="unknown_error"),  # DeepSeek
        error("Insufficient credits. Add more using https://openrouter.ai/settings/credits"),
        error("Your credit balance is too low to access the API."),  # Anthropic
        # xAI has the words where others have an object
        {
            "code": "429",
            "error": "Your team has either used all available credits or reached its …",
        },
        {"error": "you have reached your weekly usage limit, upgrade for higher limits"},  # Ollama
        # through LiteLLM, which has but the words
        error("RateLimitError: Error code: 429 - {'error': {'code': 'insufficient_quota'}}"),
        '{"error": not quite JSON, insufficient_quota',
    ],
)
def test_what_money_alone_changes_is_not_tried_again(answer: object) -> None:
    assert not is_temporary(429, {}, answer)
    assert not is_temporary(429, {"retry-after": "1"}, answer)


@pytest.mark.parametrize(
    "answer",
    [
        # Groq's says how to pay for more, and passes all the same
        error(
            "Rate limit reached on tokens per minute (TPM): Limit 7000 …",
            code="rate_limit_exceeded",
        ),
        error(
            "Need more tokens? Upgrade at https://console.groq.com/settings/billing", type="tokens"
        ),
        # Google's has OpenAI's words for its limits per minute, and says when to come back
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota, please check your plan and billing details.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"retryDelay": "26s"}],
                }
            }
        ],
        # Azure's
        error("Requests have exceeded token rate limit. Please retry after 6 seconds.", code="429"),
        {"type": "error", "error": {"type": "rate_limit_error", "message": "Please try later"}},
    ],
)
def test_limits_of_the_rate_pass(answer: object) -> None:
    assert is_temporary(429, {}, answer)


# --- the errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (408, BackendRejected, True),
        (429, BackendBusy, True),
        (500, BackendRejected, True),
        (503, BackendBusy, True),
        (529, BackendBusy, True),
        (400, BackendRejected, False),
        (404, BackendRejected, False),
    ],
)
def test_an_error_says_whether_and_when(
    status: int, kind: type[BackendRejected], retryable: bool
) -> None:
    failure = FAILURES.status(status, {"retry-after": "2"}, json.dumps(error("overloaded")))
    assert type(failure) is kind
    assert failure.retryable is retryable
    assert failure.retry_after == (2 if retryable else None)
    assert ("asks to wait for 2 s" in str(failure)) is retryable


def test_a_quota_that_is_used_up_is_a_refusal() -> None:
    failure = FAILURES.status(429, {}, json.dumps(error("all gone", code="insufficient_quota")))
    assert type(failure) is BackendRejected
    assert not failure.retryable


def test_an_error_in_a_list_is_read_as_well() -> None:
    quota = {"message": "check your plan and billing", "details": [{"retryDelay": "26s"}]}
    failure = FAILURES.status(429, {}, json.dumps([{"error": quota}]))
    assert isinstance(failure, BackendBusy)
    assert failure.retry_after == 26


@pytest.mark.parametrize(
    ("answer", "kind", "retryable"),
    [
        (error("slow down", code=429), BackendBusy, True),
        (error("slow down", code="429"), BackendBusy, True),
        (error("slow down", code="rate_limit_exceeded"), BackendBusy, True),
        ({"type": "error", "error": {"type": "overloaded_error"}}, BackendBusy, True),
        ({"code": 503, "message": "loading", "type": "unavailable_error"}, BackendBusy, True),
        (error("the provider has failed", code=502), ModelError, True),
        (error("all gone", code="insufficient_quota"), ModelError, False),
        ({"code": 429, "type": "insufficient_quota", "message": "gone"}, ModelError, False),
        (error("context too long", code=400), ModelError, False),
        (error("it failed", code=True), ModelError, False),
        ("it failed", ModelError, False),
    ],
)
def test_so_does_one_in_the_stream(
    answer: object, kind: type[BackendError], retryable: bool
) -> None:
    failure = FAILURES.model(answer)
    assert type(failure) is kind
    assert failure.retryable is retryable
