"""What does not go into a cassette: secrets, and options that no model sees."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, cast

import attrs

from mellea_sc.core.backend import GenerationRequest, ModelOption
from mellea_sc.testing._cassette.file import Exchange, TimedDelta

__all__ = ["Scrub", "described", "scrubbed"]

Scrub: TypeAlias = Callable[[str], str]

SCRUBBED: Final = "(scrubbed)"
_OURS: Final = (ModelOption.STREAM, ModelOption.STREAM_TIMEOUT, ModelOption.THINK_TAGS)
_PART_OF_A_NAME: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET: Final = frozenset(
    {"apikey", "authorization", "credentials", "key", "password", "secret", "token"}
)


def described(request: GenerationRequest, scrub: Scrub) -> dict[str, object]:
    """A request as it stands in a cassette, and as it is compared: what the model is told, as JSON."""
    options = {
        key: SCRUBBED if _is_secret(key) and value is not None else value
        for key, value in request.options.items()
        if key not in _OURS
    }
    out: dict[str, object] = {
        "messages": [
            {"role": message.role, "content": _lines(scrub(message.content))}
            for message in request.messages
        ]
    }
    if options:
        out["options"] = _texts(_as_json(options), scrub)
    if request.json_schema is not None:
        out["schema"] = _texts(_as_json(request.json_schema), scrub, names_are_secret=False)
    return out


def _lines(text: str) -> object:
    return text.split("\n") if "\n" in text else text


def _as_json(value: Mapping[str, object]) -> object:
    return json.loads(json.dumps(dict(value), default=repr))


def _texts(value: object, scrub: Scrub, *, names_are_secret: bool = True) -> object:
    """The same with every text scrubbed."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [_texts(item, scrub, names_are_secret=names_are_secret) for item in items]
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return {
            key: SCRUBBED
            if names_are_secret and _is_secret(key) and field is not None
            else _texts(field, scrub, names_are_secret=names_are_secret)
            for key, field in fields.items()
        }
    return value


def _is_secret(name: str) -> bool:
    return not _SECRET.isdisjoint(part.lower() for part in _PART_OF_A_NAME.findall(name))


def scrubbed(exchange: Exchange, scrub: Scrub) -> Exchange:
    """An exchange that has ended, without the secrets in what came; its request has none any more."""
    error = _texts(exchange.error, scrub, names_are_secret=False)
    return attrs.evolve(
        exchange,
        deltas=_deltas(exchange.deltas, scrub),
        error=cast("Mapping[str, object] | None", error),
    )


def _deltas(deltas: Sequence[TimedDelta], scrub: Scrub) -> list[TimedDelta]:
    """The deltas of the scrubbed texts: a secret may lie across several of them."""
    texts = _cut_as([timed.delta.text for timed in deltas], scrub)
    thoughts = _cut_as([timed.delta.reasoning for timed in deltas], scrub)
    calls = [timed.delta.tool_calls for timed in deltas]
    arguments = iter(_cut_as([piece.arguments for some in calls for piece in some], scrub))
    return [
        attrs.evolve(
            timed,
            delta=attrs.evolve(
                timed.delta,
                text=text,
                reasoning=thought,
                tool_calls=tuple(attrs.evolve(one, arguments=next(arguments)) for one in some),
            ),
        )
        for timed, text, thought, some in zip(deltas, texts, thoughts, calls, strict=True)
    ]


def _cut_as(pieces: Sequence[str], scrub: Scrub) -> list[str]:
    """The pieces' scrubbed text, cut where they are cut, as far as it is the same."""
    before = "".join(pieces)
    after = scrub(before) if before else ""
    same = _common(before, after)
    tail = _common(before[same:][::-1], after[same:][::-1])
    result: list[str] = []
    position = cut = 0
    for piece in pieces:
        position += len(piece)
        start = cut
        if position <= same:
            cut = position
        else:
            cut = max(len(after) - tail, len(after) - (len(before) - position))
        result.append(after[start:cut])
    return result


def _common(one: str, other: str) -> int:
    """How many characters they begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))
