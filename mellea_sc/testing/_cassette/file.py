"""What a cassette's file says: a JSON document that people can read, edit, and compare.

::

    {
      "version": 1,
      "provider": "ollama",
      "model": "granite4:micro",
      "prefills": true,
      "judges": true,
      "exchanges": [
        {
          "request": {"messages": [{"role": "user", "content": "Count."}], "options": {…}, "schema": {…}},
          "opened": 0.052,
          "deltas": [{"at": 0.061, "text": "one "}, {"at": 0.07, "reasoning": "hm"}, …],
          "ended": {"at": 0.2}
        }
      ]
    }

Times are seconds since the request was made. A content of several lines is a list of them. An
exchange that failed on opening has no ``"opened"``; ``"ended"`` has the ``"error"`` where there was one, and
``"left": true`` where the consumer did not wait for the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import attrs

from mellea_sc.backends.http.json_values import (
    count_in,
    fields_of,
    list_of,
)
from mellea_sc.backends.http.splitting import parse_object
from mellea_sc.core import errors
from mellea_sc.core.backend import Delta, ToolCallDelta, Usage

__all__ = ["Exchange", "Head", "TimedDelta", "error_in", "error_out", "load", "save"]

VERSION: Final = 1
_WIDTH: Final = 100
_USAGE: Final = [field.name for field in attrs.fields(Usage)]
_ALWAYS_SAID: Final = ("prompt_tokens", "completion_tokens")


@attrs.frozen
class Head:
    """What the recorded backend said of itself."""

    provider: str
    model_id: str
    prefills: bool
    judges: bool


@attrs.frozen
class TimedDelta:
    """A delta and when it came."""

    at: float
    delta: Delta


@attrs.define(eq=False)
class Exchange:
    """A request, as JSON says it, and what came of it; times in seconds since it was made."""

    request: Mapping[str, object]
    opened: float | None = None
    deltas: list[TimedDelta] = attrs.field(factory=list[TimedDelta])
    ended: float | None = None
    error: Mapping[str, object] | None = None
    """What :func:`error_out` has made of an error."""
    left: bool = False
    """Whether the consumer left before the end."""


# --- writing ------------------------------------------------------------------------------------


def save(path: Path, head: Head, exchanges: Iterable[Exchange]) -> None:
    """Write a whole cassette; a reader never sees half of one."""
    document = {
        "version": VERSION,
        "provider": head.provider,
        "model": head.model_id,
        "prefills": head.prefills,
        "judges": head.judges,
        "exchanges": [_exchange_out(exchange) for exchange in exchanges],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    # What cannot be encoded (half of a surrogate pair) becomes the escape that JSON has for it.
    new.write_bytes(f"{_laid_out(document)}\n".encode("utf-8", "backslashreplace"))
    new.replace(path)


def _exchange_out(exchange: Exchange) -> dict[str, object]:
    out: dict[str, object] = {"request": exchange.request}
    if exchange.opened is not None:
        out["opened"] = _seconds(exchange.opened)
        out["deltas"] = [_delta_out(timed) for timed in exchange.deltas]
    ended: dict[str, object] = {"at": _seconds(exchange.ended or 0.0)}
    if exchange.left:
        ended["left"] = True
    if exchange.error is not None:
        ended["error"] = exchange.error
    out["ended"] = ended
    return out


def _delta_out(timed: TimedDelta) -> dict[str, object]:
    delta = timed.delta
    out: dict[str, object] = {"at": _seconds(timed.at)}
    if delta.reasoning:
        out["reasoning"] = delta.reasoning
    if delta.tool_calls:
        out["tool_calls"] = [
            attrs.asdict(piece, filter=lambda _, value: value not in (None, ""))
            for piece in delta.tool_calls
        ]
    if delta.text or len(out) == 1:
        out["text"] = delta.text
    if delta.finish_reason is not None:
        out["finish_reason"] = delta.finish_reason
    if delta.usage is not None:
        out["usage"] = {
            name: count
            for name in _USAGE
            if (count := getattr(delta.usage, name)) or name in _ALWAYS_SAID
        }
    return out


def error_out(error: Exception) -> dict[str, object]:
    """An error as it stands in a cassette."""
    out: dict[str, object] = {"class": type(error).__name__, "message": str(error)}
    if isinstance(error, errors.BackendRejected):
        out |= {"status": error.status, "body": error.body}
    if isinstance(error, errors.BackendError):
        if error.retryable != type(error).retryable:
            out["retryable"] = error.retryable
        if error.retry_after is not None:
            out["retry_after"] = error.retry_after
    return out


def _seconds(value: float) -> float:
    return round(value, 3)


def _laid_out(value: object, indent: str = "", name: str = "") -> str:
    """JSON with one line for what fits into one."""
    line = f"{name}{json.dumps(value, ensure_ascii=False)}"
    if len(indent) + len(line) < _WIDTH or not isinstance(value, dict | list):
        return line
    inner = f"{indent}  "
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value).items()
        items = [_laid_out(field, inner, f"{json.dumps(key)}: ") for key, field in fields]
        begin, end = "{}"
    else:
        items = [_laid_out(item, inner) for item in cast("list[object]", value)]
        begin, end = "[]"
    return f"{name}{begin}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{end}"


# --- reading ------------------------------------------------------------------------------------


def load(path: Path) -> tuple[Head, Sequence[Exchange]]:
    """What the backend said of itself, and the exchanges.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a cassette of this version.
    """
    document = parse_object(path.read_bytes().decode("utf-8", "replace"))
    if document is None or document.get("version") != VERSION:
        found = "no JSON object" if document is None else f"version {document.get('version')!r}"
        raise ValueError(f"{path} is not a cassette of version {VERSION}: it has {found}")
    exchanges = list_of(document.get("exchanges"))
    head = Head(
        str(document.get("provider", "")),
        str(document.get("model", "")),
        # Files of before did not say it, and the programs that they are of were told these.
        prefills=document.get("prefills") is True,
        judges=document.get("judges") is not False,
    )
    return head, [_exchange_in(fields_of(exchange)) for exchange in exchanges]


def _exchange_in(fields: Mapping[str, object]) -> Exchange:
    ended = fields_of(fields.get("ended"))
    error = ended.get("error")
    return Exchange(
        fields_of(fields.get("request")),
        _time_in(fields["opened"]) if "opened" in fields else None,
        [_delta_in(fields_of(delta)) for delta in list_of(fields.get("deltas"))],
        _time_in(ended.get("at")),
        None if error is None else fields_of(error),
        ended.get("left") is True,
    )


def _delta_in(fields: Mapping[str, object]) -> TimedDelta:
    reason = fields.get("finish_reason")
    usage = fields_of(fields.get("usage"))
    return TimedDelta(
        _time_in(fields.get("at")),
        Delta(
            str(fields.get("text", "")),
            reason if isinstance(reason, str) else None,
            Usage(**{name: count_in(usage, name) for name in _USAGE}) if usage else None,
            str(fields.get("reasoning", "")),
            tuple(_call_in(fields_of(piece)) for piece in list_of(fields.get("tool_calls"))),
        ),
    )


def _call_in(fields: Mapping[str, object]) -> ToolCallDelta:
    said = {name: str(fields.get(name, "")) for name in ("id", "name", "arguments")}
    return ToolCallDelta(**said, index=count_in(fields, "index") if "index" in fields else None)


def _time_in(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def error_in(fields: Mapping[str, object]) -> Exception:
    """The error again; one that is not of the library's becomes a ``BackendError`` that names it."""
    error = _error_in(fields)
    if isinstance(error, errors.BackendError):
        if isinstance(retryable := fields.get("retryable"), bool):
            error.retryable = retryable
        wait = fields.get("retry_after")
        error.retry_after = float(wait) if isinstance(wait, int | float) else None
    return error


def _error_in(fields: Mapping[str, object]) -> Exception:
    name, message = str(fields.get("class")), str(fields.get("message", ""))
    kind: object = getattr(errors, name, None)
    if not isinstance(kind, type):
        return errors.BackendError(f"{name}: {message}")
    if issubclass(kind, errors.BackendRejected):
        status, body = count_in(fields, "status"), str(fields.get("body", ""))
        return kind(message, status=status, body=body)
    if issubclass(kind, errors.BackendError | errors.InvalidOption | errors.MissingExtra):
        return kind(message)
    return errors.BackendError(f"{name}: {message}")
