"""What a server says of a refusal: its words, what it is about, and whether and when the request may succeed later.

An error is a text, or an object, possibly nested, in one of the usual shapes. Statuses alone do not tell what it is
about.

The error codes have comments that name their servers; the patterns match what the messages of many servers have in
common. A text that is not recognised is a plain refusal: a wrong guess would give wrong advice.

Servers state the time in a dozen ways (``Retry-After`` in seconds or as a date, milliseconds, the reset times of
several limits). Their clocks differ from ours, so a date is relative to the response's own ``Date``.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, Literal, TypeAlias

from mellea_sc.backends.http.json_values import fields_of, list_of, value_or_text

Subject: TypeAlias = Literal["context", "model", "key", "other"]
"""The prompt is too long; there is no such model; the key is wrong; or anything else."""

_INSIDE: Final = ("error", "message", "detail")
"""Fields of an error object that hold its message or another error object."""
_DEPTH: Final = 4
"""How many levels of nested objects are searched."""


def objects_in(error: object, depth: int = _DEPTH) -> Iterator[Mapping[str, object]]:
    """An error object and those nested in it, the outermost first; of a list (Google), its first item."""
    for one in list_of(error)[:1]:
        yield from objects_in(one, depth)
    fields = fields_of(error)
    if fields and depth:
        yield fields
        for key in _INSIDE:
            yield from objects_in(fields.get(key), depth - 1)


def strings_in(error: object, *keys: str) -> Iterator[str]:
    """The strings in fields of these names, of an error object and those nested in it."""
    for fields in objects_in(error):
        for key in keys:
            if isinstance(value := fields.get(key), str):
                yield value


def words_of(error: object, depth: int = _DEPTH) -> str:
    """The message in an error object: those of the objects in it, joined if there are several.

    ``{"error": "Bad Request", "message": "too long"}`` has two, and so has OpenRouter's error with its provider's.
    """
    for one in list_of(error)[:1]:
        if _insides_of(one):  # Google's errors are lists of one
            error = one
    said: list[str] = []
    for inside in _insides_of(error) if depth else ():
        if isinstance(inside, str):
            words = inside
        elif said and not _insides_of(inside):
            continue  # not an error: the message of a chat, perhaps
        else:
            words = words_of(inside, depth - 1)
        if not any(words in other for other in said):
            said.append(words)
    if said:
        return ": ".join(said)
    return json.dumps(error) if isinstance(error, dict) else str(error)


def _insides_of(error: object) -> list[object]:
    """What an error object has in the fields for its message."""
    fields = fields_of(error)
    raw = fields_of(fields.get("metadata")).get("raw")
    values = [fields.get(key) for key in _INSIDE]
    # that of the provider, through OpenRouter
    values.append(value_or_text(raw) if isinstance(raw, str) else raw)
    return [value for value in values if value and isinstance(value, str | dict | list)]


def subject_of(error: object) -> Subject:
    """The subject of an error object, or of the text of an error page."""
    codes = {re.sub(r"[\W_]", "", code).lower() for code in strings_in(error, "code", "type")}
    words = " ".join(words_of(error).split())[:_READ]
    if codes & _CONTEXT_CODES or _CONTEXT.search(words):
        return "context"
    if codes & _MODEL_CODES or _MODEL.search(words):
        return "model"
    if codes & _KEY_CODES or _KEY.search(words):
        return "key"
    return "other"


_READ: Final = 2000
"""The maximum of characters of a text that are searched."""

# Codes are compared in lower case and without separators.
_CONTEXT_CODES: Final = frozenset(
    {
        "contextlengthexceeded",  # OpenAI, Azure, Groq, Cerebras
        "exceedcontextsizeerror",  # llama.cpp
        "modelcontextwindowexceeded",  # z.ai
        "contextwindowexceeded",
    }
)
_MODEL_CODES: Final = frozenset(
    {
        "modelnotfound",  # OpenAI, Groq, Hugging Face's router
        "deploymentnotfound",  # Azure
        "invalidmodel",  # Mistral
        "modelnotavailable",  # Together
        "modelnotsupported",  # Hugging Face's router
        "unknownmodel",  # GitHub
        "modelnotexist",
    }
)
_KEY_CODES: Final = frozenset({"invalidapikey", "authenticationerror"})

_CONTEXT: Final = re.compile(
    r"""
    (maximum|max|model'?s?)\ (context|prompt|model)\ (length|window)  # OpenAI, vLLM, SGLang, xAI, DeepSeek
    | (prompt|input|inputs|messages?)\b[^.]{0,40}\btoo\ (long|large\ for\ (the\ )?model)  # Anthropic, Bedrock
    | too\ large\ for\ model\ with\ \d+  # Mistral
    | exceed(s|ed)?\b[^.]{0,60}\b(context|prompt)\ (size|length|limit|window)  # llama.cpp, Anthropic, Ollama
    | (context|prompt)\ (size|length|limit|window)\b[^.]{0,30}\bexceed
    | context\ length\ of\ only\ \d+  # LM Studio
    | (greater|longer)\ than\ the\ (model'?s?\ )?context\ length  # LM Studio
    | input\ token\ count\b[^.]{0,40}\bexceeds  # Gemini
    | exceed(s|ed)?\ (the\ )?(model\ )?(token\ limit|maximum\ (number|allowed\ number)\ of\ (input\ )?tokens)  # Moonshot
    | reduce\ the\ length\ of\ the\ (messages|prompt)  # Groq, Cerebras
    | inputs`\ (must\ have\ less\ than|tokens\ \+)  # text-generation-inference
    | configured\ context\ size\ is | prompt\ exceeds\ max\ length  # z.ai
    | range\ of\ input\ length\ should\ be  # DashScope
    """,
    re.IGNORECASE | re.VERBOSE,
)
_MODEL: Final = re.compile(
    r"""
    \bmodels?\b[`'"]?[\s:=(]*([`'"\[(]?\S{1,200}?[`'"\])]?,?\s+)?  # "model", perhaps with its name
    ( (was\ |is\ |could\ |can\ )?(not|n't|cannot\ be)\ (be\ )?(found|exist|available|deployed)
    | (does\ not|doesn't|do\ not)\ exist
    | is\ not\ supported\ by\ any )
    | \b(no\ such|unknown|invalid|unsupported)\ model\b(?!\ (option|parameter|output|version|config))
    | \bdeployment\b[^.]{0,40}\bdoes\ not\ exist  # Azure
    | \bnot\ a\ valid\ model\b  # OpenRouter
    | \bno\ endpoints\ found\ for\b  # OpenRouter
    | \b(unable\ to|cannot)\ access\ model\b  # Together
    | \bmodel\ identifier\ is\ invalid\b  # Bedrock
    | \binvalid\ model\ name\b  # LiteLLM
    | \bno\ models\ loaded\b  # LM Studio
    | ^model:\ \S+$  # Anthropic
    """,
    re.IGNORECASE | re.VERBOSE,
)
_KEY: Final = re.compile(
    r"\b(invalid|incorrect|missing|no|wrong) api[ _-]?key\b|\bapi[ _-]?key (is )?(not valid|invalid|missing)",
    re.IGNORECASE,
)


# --- whether it is temporary ----------------------------------------------------------------------

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
        for key in ("code", "status", "status_code", "statusCode", "http_code", "type"):
            value = fields.get(key)
            if isinstance(value, bool) or not isinstance(value, int | str):
                continue
            word = str(value).lower()
            if word in _STATUS_WORDS:
                return _STATUS_WORDS[word]
            if re.fullmatch(r"[45]\d\d", word):
                return int(word)
    return None


_STATUS_WORDS: Final = {
    "rate_limit_exceeded": 429,  # OpenAI, Groq
    "rate_limit_error": 429,  # Anthropic
    "too_many_requests": 429,
    "resource_exhausted": 429,  # Google
    "overloaded_error": OVERLOADED,  # Anthropic
    "engine_overloaded_error": 429,  # Moonshot
    "server_overloaded": 503,
    "unavailable": 503,  # Google
    "unavailable_error": 503,  # llama.cpp, while it loads the model
    "insufficient_system_resource": 503,  # DeepSeek, as a finish reason
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
    """,
    re.IGNORECASE | re.VERBOSE,
)


_SAYING: Final = ("code", "type", "status", "message", "error", "detail")
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
    for name, value in headers.items():
        if "ratelimit" not in name or "reset" not in name:
            continue
        remaining = _number(headers.get(name.replace("reset", "remaining"), ""))
        if (remaining is None or remaining <= 0) and (delay := _seconds(value, now)) is not None:
            yield delay


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
    rf"\b(?:try\ again|retry)\ (?:in|after)\ (?:about\ )?((?:{_SPOKEN.pattern},?\s?)+)",
    re.IGNORECASE,
)
"""In OpenAI's, Azure's and Google's words: ``Please try again in 6m0s``, ``retry after 22 seconds``."""


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
