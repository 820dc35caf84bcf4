"""The options that mean the same with every model, and how they are read.

Options are a plain mapping. Other keys are sent to the server unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, TypeAlias

from mellea_sc.core.errors import InvalidOption

ModelOptions: TypeAlias = Mapping[str, object]
"""Options by the names of :class:`ModelOption`; others are sent to the server unchanged."""

DEFAULT_STREAM_TIMEOUT: Final = 120.0


class ModelOption:
    """The options every backend understands (the names are Mellea's).

    A value of ``None`` counts as not given; for :attr:`STREAM_TIMEOUT` it means without limit.
    """

    MAX_NEW_TOKENS: Final = "@@@max_new_tokens@@@"
    """int: at most so many tokens are generated."""
    SYSTEM_PROMPT: Final = "@@@system_prompt@@@"
    """str: goes before everything else, as the system's message."""
    TEMPERATURE: Final = "temperature"
    """float: 0 is greedy."""
    CONTEXT_WINDOW: Final = "@@@context_window@@@"
    """int: tokens of context, where the server lets a request choose."""
    SEED: Final = "@@@seed@@@"
    """int: the seed of the sampling; the same seed gives the same answer, where the server supports it."""
    STOP_SEQUENCES: Final = "@@@stop_sequences@@@"
    """list of str: generation ends before the first occurrence of any of them."""
    STREAM: Final = "@@@stream@@@"
    """bool: hand out deltas as they arrive. The server is asked to stream either way."""
    STREAM_TIMEOUT: Final = "@@@stream_timeout@@@"
    """float, seconds: bounds the wait for each delta, the first included; default 120, ``None``: off."""
    THINK_TAGS: Final = "@@@think_tags@@@"
    """bool, or two str: tags around the reasoning at the beginning of answers, which is then removed from their text
    (``True``: ``<think>`` and ``</think>``). For models whose server leaves the reasoning in the text. The first tag
    may be empty, for models whose prompt already ends with it."""


def merge_options(*layers: ModelOptions | None) -> ModelOptions:
    """Merge layers of options into one mapping; later layers have priority.

    Raises:
        InvalidOption: a layer is not a mapping with ``str`` keys.
    """
    merged: dict[str, object] = {}
    for layer in layers:
        if layer is None:
            continue
        if not isinstance(layer, Mapping) or not all(isinstance(key, str) for key in layer):
            raise InvalidOption(
                f"model_options must be a mapping with str keys (see ModelOption), not {layer!r}"
            )
        merged.update(layer)
    if ModelOption.STREAM_TIMEOUT in merged:
        stream_timeout(merged)
    if ModelOption.THINK_TAGS in merged:
        think_tags(merged)
    return merged


def stream_timeout(options: ModelOptions) -> float:
    """Seconds to wait for each delta; ``math.inf`` when the limit is off.

    Raises:
        InvalidOption: it is not a positive number.
    """
    value = options.get(ModelOption.STREAM_TIMEOUT, DEFAULT_STREAM_TIMEOUT)
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InvalidOption(
            f"ModelOption.STREAM_TIMEOUT must be a positive number of seconds or None, not {value!r}"
        )
    return float(value)


def think_tags(options: ModelOptions) -> tuple[str, str] | None:
    """The tags around the reasoning at the beginning of answers; ``None`` if the option is off.

    Raises:
        InvalidOption: it is neither a bool nor two strings, of which the second must not be empty.
    """
    match options.get(ModelOption.THINK_TAGS):
        case None | False:
            return None
        case True:
            return "<think>", "</think>"
        case (str() as opening, str() as closing) if closing:
            return opening, closing
        case value:
            raise InvalidOption(
                f'ModelOption.THINK_TAGS must be a bool or two tags, like ("<think>", "</think>"), not {value!r}'
            )
