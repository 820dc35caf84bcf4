"""Translates the options of a request to the parameters of a protocol.

:class:`ModelOption` itself is defined in the core; programs import it from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, cast

import attrs

from mellea_sc.core.backend import ModelOption, ModelOptions
from mellea_sc.core.errors import InvalidOption

__all__ = ["ModelOption", "WireNames", "checked_extra_body", "wire_body"]


@attrs.frozen
class WireNames:
    """A protocol's names of the options.

    Args:
        names: Maps keys of :class:`ModelOption` to names; other options of it are not sent.
        reserved: Names that only the backend may set, each with advice what to use instead.
    """

    names: Mapping[str, str]
    reserved: Mapping[str, str]


def wire_body(
    options: ModelOptions, extra_body: Mapping[str, object], wire: WireNames
) -> tuple[dict[str, object], dict[str, object]]:
    """The additional fields for the body of a request, and the options as parameters of the protocol.

    Args:
        options: The request's options. Keys that are not of :class:`ModelOption` stay unchanged; ``extra_body`` is
            no parameter but holds more fields.
        extra_body: The backend's additional fields.
        wire: The protocol's names.

    Raises:
        InvalidOption: a value is not usable, or a key is reserved for the backend.
    """
    parameters: dict[str, object] = {}
    fields = dict(extra_body)
    for key, value in options.items():
        if value is None or key in _NOT_FOR_THE_WIRE:
            continue
        if key in _CHECKED:
            name, check = _CHECKED[key]
            checked = check(f"ModelOption.{name}", value)
            if key in wire.names:
                parameters[wire.names[key]] = checked
        elif key.startswith("@@@"):
            raise InvalidOption(f"{key!r} is not one of the options in ModelOption")
        elif key in wire.reserved:
            raise InvalidOption(f"the option {key!r} cannot be set here: {wire.reserved[key]}")
        elif key == "extra_body":
            fields |= checked_extra_body(value, wire)
        else:
            parameters[key] = value
    return fields, parameters


def checked_extra_body(extra: object, wire: WireNames) -> dict[str, object]:
    """Check the caller's ``extra_body``: additional fields for the body of a request.

    Raises:
        InvalidOption: it is no mapping, or one of its keys is reserved for the backend.
    """
    if extra is None:
        return {}
    fields = cast("Mapping[object, object]", extra) if isinstance(extra, Mapping) else {0: extra}
    checked: dict[str, object] = {}
    for key, value in fields.items():
        if not isinstance(key, str):
            raise InvalidOption("extra_body must be a mapping with str keys")
        if key in wire.reserved:
            raise InvalidOption(f"extra_body cannot hold {key!r}: {wire.reserved[key]}")
        checked[key] = value
    return checked


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOption(f"{name} must be an int, not {value!r}")
    return value


def _positive(name: str, value: object) -> int:
    if (number := _integer(name, value)) < 1:
        raise InvalidOption(f"{name} must be 1 or more, not {value!r}")
    return number


def _temperature(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or value < 0:
        raise InvalidOption(f"{name} must be 0 or more and finite, not {value!r}")
    return value


def _strings(name: str, value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        items = cast("list[object] | tuple[object, ...]", value)
        strings = [item for item in items if isinstance(item, str)]
        if len(strings) == len(items):
            return strings
    raise InvalidOption(f"{name} must be a str or a list of str, not {value!r}")


_NOT_FOR_THE_WIRE: Final = frozenset(
    # The messages already contain the system prompt; the other options concern only the client.
    {
        ModelOption.SYSTEM_PROMPT,
        ModelOption.STREAM,
        ModelOption.STREAM_TIMEOUT,
        ModelOption.THINK_TAGS,
    }
)

_Check: TypeAlias = Callable[[str, object], object]

_CHECKED: Final[Mapping[str, tuple[str, _Check]]] = {
    ModelOption.MAX_NEW_TOKENS: ("MAX_NEW_TOKENS", _positive),
    ModelOption.CONTEXT_WINDOW: ("CONTEXT_WINDOW", _positive),
    ModelOption.SEED: ("SEED", _integer),
    ModelOption.TEMPERATURE: ("TEMPERATURE", _temperature),
    ModelOption.STOP_SEQUENCES: ("STOP_SEQUENCES", _strings),
}
