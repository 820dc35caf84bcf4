"""Reads what a server says of an error: its words, and what it is about, because statuses alone do not tell it.

An error is a text, or an object, possibly nested, in one of the usual shapes.

The error codes have comments that name their servers; the patterns match what the messages of many servers have in
common. A text that is not recognised is a plain refusal: a wrong guess would give wrong advice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias

from mellea_sc.backends.http.json_values import fields_of, list_of, value_or_text

__all__ = ["Subject", "objects_in", "strings_in", "subject_of", "tells_failure", "words_of"]

Subject: TypeAlias = Literal["context", "model", "key", "other"]
"""The prompt is too long; there is no such model; the key is wrong; or anything else."""

_INSIDE: Final = ("error", "message", "detail")
"""Fields of an error object that hold its message or another error object."""
_DEPTH: Final = 4
"""How many levels of nested objects are searched."""


def tells_failure(event: Mapping[str, object]) -> bool:
    """Whether an event of a stream is an error in a form of the server's own.

    Args:
        event: An event without any part of an answer; it may also be metadata or a ping.
    """
    if "error" in (event.get("type"), event.get("status")):
        return True
    # "errors" is Cloudflare's, "error_msg" Baidu's.
    if any(value for name, value in event.items() if name.lower().startswith("err")):
        return True
    if fields_of(event.get("base_resp")).get("status_code"):  # MiniMax
        return True
    code = event.get("code", event.get("status_code"))
    return bool(event.get("message")) and code is not None and str(code).lower() not in _FINE


_FINE: Final = ("", "0", "200", "ok", "success")
"""Codes of a message that is no error."""


def objects_in(error: object, depth: int = _DEPTH) -> Iterator[Mapping[str, object]]:
    """An error object and those nested in it, the outermost first; of a list (Google), its first item."""
    for one in list_of(error)[:1]:
        yield from objects_in(one, depth)
    fields = fields_of(error)
    if fields and depth:
        yield fields
        for key in _INSIDE:
            value = fields.get(key)
            # Some gateways put the whole answer of the server into their message.
            if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
                value = value_or_text(value)
            yield from objects_in(value, depth - 1)


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
