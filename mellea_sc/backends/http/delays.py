"""Whether and when a refused request may succeed later, by the server's answer.

Servers state the time in a dozen ways (``Retry-After`` in seconds or as a date, milliseconds, the reset times of
several limits). Their clocks differ from ours, so a date is relative to the response's own ``Date``.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from mellea_sc.backends.http.json_values import fields_of, list_of
from mellea_sc.backends.http.refusals import objects_in, strings_in, words_of

__all__ = ["BUSY", "delay_in", "is_temporary", "status_in"]

OVERLOADED: Final = 529
"""A status used by Anthropic and compatible servers."""
BUSY: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, OVERLOADED)
"""Statuses of requests that may succeed at another time."""


def is_temporary(status: int, headers: Mapping[str, str], answer: object) -> bool:
    """Whether the same request may succeed a little later.

    Args:
        status: The response's status, or the status in an error object of the stream.
        headers: The response's headers, names in lower case; empty for an error in the stream.
        answer: The answer: an error object, or a text.
    """
    # OpenAI's and Anthropic's word
    if headers.get("x-should-retry", "").strip().lower() == "false":
        return False
    if status != HTTPStatus.REQUEST_TIMEOUT and status not in BUSY and not 500 <= status < 600:
        return False
    return not _is_about_money(answer)


def status_in(error: object) -> int | None:
    """The status in an error object of the stream, which may be a number or a word."""
    for fields in objects_in(error):
        for key in _STATUS_KEYS:
            value = fields.get(key)
            if isinstance(value, bool) or not isinstance(value, int | str):
                continue
            word = re.sub(r"[\W_]", "", str(value)).lower()
            if word in _STATUS_WORDS:
                return _STATUS_WORDS[word]
            if re.fullmatch(r"[45]\d\d", word):
                return int(word)
    return None


_STATUS_KEYS: Final = (
    *("code", "status", "status_code", "statusCode"),
    *("http_code", "http_status", "http_status_code"),
    *("type", "error_type"),
)
# Words are compared in lower case and without separators. Those for any failure of a server (``server_error``) are not
# among them: it may fail again.
_STATUS_WORDS: Final = {
    "ratelimitexceeded": 429,  # OpenAI, Groq
    "ratelimiterror": 429,  # Anthropic
    "ratelimitreached": 429,  # Azure
    "toomanyrequests": 429,
    "resourceexhausted": 429,  # Google
    "throttlingexception": 429,  # Bedrock
    "throttlingerror": 429,  # LiteLLM
    "limitrequests": 429,  # DashScope
    "throttlingratequota": 429,  # DashScope
    "slowdown": 429,  # OpenAI
    "engineoverloadederror": 429,  # Moonshot
    "1302": 429,  # z.ai: too many requests at a time
    "1303": 429,  # z.ai: too many requests in a time
    "1305": 429,  # z.ai
    "1312": 429,  # z.ai: the model is busy
    "serveroverloaded": 503,
    "serverisoverloaded": 503,  # OpenAI
    "overloaded": 503,  # text-generation-inference
    "unavailable": 503,  # Google
    "unavailableerror": 503,  # llama.cpp, while it loads the model
    "serviceunavailable": 503,
    "serviceunavailableexception": 503,  # Bedrock
    "providerunavailable": 503,  # OpenRouter
    "insufficientsystemresource": 503,  # DeepSeek, as a finish reason
    "overloadederror": OVERLOADED,  # Anthropic
}


# --- money ---------------------------------------------------------------------------------------


def _is_about_money(answer: object) -> bool:
    """Whether a plan or a balance is used up, so that waiting does not help."""
    said = [answer] if isinstance(answer, str) else strings_in(answer, *_SAYING)
    words = " ".join(words[:_READ] for words in said)
    if _MONEY.search(words):
        return True
    # Google also says this for limits per minute, but then with a delay.
    return "check your plan and billing" in words.lower() and _delay_in_body(answer, 0.0) is None


_MONEY: Final = re.compile(
    r"""
    insufficient_quota | billing_hard_limit_reached | billing_not_active | access_terminated  # OpenAI
    | credit_balance_exhausted | usage_limit_reached | billing_error
    | exceeded_current_quota_error  # Moonshot
    | (credit\ balance\ is\ too\ low) | (credit|account)\ balance\ is\ (exhausted|depleted)  # Anthropic
    | insufficient[ _](account[ _])?(balance|credits?|funds)  # DeepSeek, OpenRouter
    | used\ all\ available\ credits | (monthly|your)\ spending\ limit  # xAI
    | requires\ more\ credits | run\ out\ of\ credits | exceeded\ your\ monthly\ included\ credits
    | (session|hourly|daily|weekly|monthly)\ usage\ limit  # Ollama's cloud
    | usage\ limit\ reached | limit\ exhausted | 使用上限 | 余额不足 | 欠费  # z.ai
    """,
    re.IGNORECASE | re.VERBOSE,
)


_SAYING: Final = ("code", "type", "status", "message", "error", "detail")
_READ: Final = 2000
"""Characters of a text that are looked at."""


# --- how long ------------------------------------------------------------------------------------


def delay_in(
    status: int, headers: Mapping[str, str], answer: object = None, *, now: float | None = None
) -> float | None:
    """The seconds that the server asks to wait; ``None`` if it does not say.

    Args:
        status: The response's status, or the status in an error object of the stream.
        headers: The response's headers, names in lower case; empty for an error in the stream.
        answer: The answer: an error object, or a text.
        now: The time in seconds since the epoch, for a response without ``Date``; by default the current time.
    """
    if (theirs := _date(headers.get("date", ""))) is not None:
        now = theirs
    elif now is None:
        now = time.time()
    delay = _delay_in_headers(status, headers, now)
    if delay is None and status in BUSY:
        delay = _delay_in_body(answer, now)
    return delay if delay is None else max(delay, 0.0)


def _delay_in_headers(status: int, headers: Mapping[str, str], now: float) -> float | None:
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    if (delay := _seconds(headers.get("retry-after", ""), now)) is not None:
        return delay
    if status != HTTPStatus.TOO_MANY_REQUESTS:
        return (
            None  # every answer has these headers, but only with this status a limit is the reason
        )
    return max(_resets(headers, now), default=None)


def _resets(headers: Mapping[str, str], now: float) -> Iterator[float]:
    """The times at which limits are reset, of those that are used up or may be."""
    for used_up in _USED_UP.finditer(headers.get("ratelimit", "")):
        yield float(used_up[1])
    for name, value in headers.items():
        if "ratelimit" not in name or "reset" not in name:
            continue
        remaining = _number(headers.get(name.replace("reset", "remaining"), ""))
        if (remaining is None or remaining <= 0) and (delay := _seconds(value, now)) is not None:
            yield delay


_USED_UP: Final = re.compile(r"\b(?:r|remaining)=0\s*[;,]\s*(?:t|reset)=(\d{1,12})\b")
"""A limit of which nothing remains, in the ``RateLimit`` header of the IETF's drafts (Hugging Face)."""


def _delay_in_body(answer: object, now: float) -> float | None:
    for fields in objects_in(answer):
        for detail in list_of(fields.get("details")):  # Google's RetryInfo
            said = fields_of(detail).get("retryDelay")
            if isinstance(said, str) and (delay := _seconds(said, now)) is not None:
                return delay
        sent = fields_of(fields_of(fields.get("metadata")).get("headers"))  # OpenRouter's
        headers = {name.lower(): str(value) for name, value in sent.items()}
        if (delay := _delay_in_headers(HTTPStatus.TOO_MANY_REQUESTS, headers, now)) is not None:
            return delay
    if wish := _WISH.search(words_of(answer)[:_READ]):
        said = _SPOKEN.findall(wish[1].lower())
        return sum(
            float(n) * _UNITS["ms" if unit.startswith(("ms", "mil")) else unit[0]]
            for n, unit in said
        )
    return None


_SPOKEN: Final = re.compile(
    r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s?(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)(?![a-z])",
    re.IGNORECASE,
)
_WISH: Final = re.compile(
    rf"\b(?:(?:try\ again|retry)\ (?:in|after)|wait)\ (?:about\ )?((?:{_SPOKEN.pattern},?\s?)+)",
    re.IGNORECASE,
)
"""In OpenAI's, Azure's, Google's and GitHub's words: ``Please try again in 6m0s``, ``retry after 22 seconds``,
``Please wait 9 seconds before retrying``."""


def _seconds(text: str, now: float) -> float | None:
    """The seconds from now in any of the usual forms; negative if the time has passed."""
    text = text.strip()
    # A gateway and the server behind it may both say it: then the header is a list.
    if (number := _number(text.rpartition(",")[2])) is not None:
        if number >= _EPOCH * 1000:
            return number / 1000 - now
        return number - now if number >= _EPOCH else number
    if _DURATION.fullmatch(text):
        return sum(float(n) * _UNITS[unit] for n, unit in _PART.findall(text))
    return None if (date := _date(text)) is None else date - now


_EPOCH: Final = 1e9
"""A number that is at least this large is a date, in seconds or in milliseconds since 1970."""
_UNITS: Final = {
    "d": 86400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}
_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,12})?)(ms|us|µs|ns|d|h|m|s)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(text: str) -> float | None:
    """Seconds since the epoch of an HTTP date, or of one as in RFC 3339."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        try:
            date = datetime.fromisoformat(text)
        except ValueError:
            return None
    try:
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
