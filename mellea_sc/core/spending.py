"""Limits, prices, and the amounts that were used, as values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import attrs

from mellea_sc.core.errors import InvalidOption

LimitName: TypeAlias = Literal["tokens", "requests", "seconds", "cost"]
"""Which limit was exceeded."""


def _whole(_: object, field: attrs.Attribute[int | None], value: object) -> None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return
    raise InvalidOption(f"{field.name} must be an integer from 0 on or None, not {value!r}")


def _amount(*, or_none: bool) -> Callable[[object, attrs.Attribute[float], object], None]:
    def check(_: object, field: attrs.Attribute[float], value: object) -> None:
        if value is None and or_none:
            return
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 <= value < math.inf
        ):
            allowed = "a number from 0 on" + (" or None" if or_none else "")
            raise InvalidOption(f"{field.name} must be {allowed}, not {value!r}")

    return check


@attrs.frozen(kw_only=True)
class Prices:
    """The prices of a model's tokens, per million, in a currency of your choice.

    Args:
        prompt: The price of a million prompt tokens.
        completion: The price of a million generated tokens.

    Raises:
        InvalidOption: a price is not a number from 0 on.
    """

    prompt: float = attrs.field(validator=_amount(or_none=False))
    completion: float = attrs.field(validator=_amount(or_none=False))


@attrs.frozen(kw_only=True)
class Limits:
    """How much a block or a call may use; ``None``: no limit. A value that can be used for many calls.

    Args:
        tokens: Prompt and generated tokens together.
        requests: Requests to a model.
        seconds: Time, from entering the block or beginning the call.
        cost: Money; needs prices.
        prices: The price of every model's tokens, or a price for each model by its name.

    Raises:
        InvalidOption: one of them is not usable.
    """

    tokens: int | None = attrs.field(default=None, validator=_whole)
    requests: int | None = attrs.field(default=None, validator=_whole)
    seconds: float | None = attrs.field(default=None, validator=_amount(or_none=True))
    cost: float | None = attrs.field(default=None, validator=_amount(or_none=True))
    prices: Prices | Mapping[str, Prices] | None = None

    def __attrs_post_init__(self) -> None:
        named: object = self.prices
        known = list(named.values()) if isinstance(named, Mapping) else [named]
        if named is not None and not all(isinstance(prices, Prices) for prices in known):
            raise InvalidOption(
                f"prices must be Prices, or a mapping of them by model, not {named!r}"
            )
        if self.cost is not None and named is None:
            raise InvalidOption("a limit of cost needs prices=Prices(prompt=…, completion=…)")

    def prices_of(self, model_id: str) -> Prices | None:
        """The prices of a model's tokens; ``None`` if no prices were given.

        Raises:
            InvalidOption: there are prices, and none for this model.
        """
        if not isinstance(self.prices, Mapping):
            return self.prices
        try:
            return self.prices[model_id]
        except KeyError:
            raise InvalidOption(f"the limits have no prices for the model {model_id!r}") from None


@attrs.frozen(kw_only=True)
class Spent:
    """What was used.

    Args:
        prompt_tokens: Tokens of the prompts.
        completion_tokens: Tokens generated.
        requests: Requests sent to a model.
        seconds: Time since the beginning.
        cost: Money; ``None`` without prices.
        estimated: Whether the tokens of any request are an estimate, because its server has not (or not yet)
            reported them.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0
    seconds: float = 0.0
    cost: float | None = None
    estimated: bool = False

    @property
    def tokens(self) -> int:
        """Prompt and generated tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def __str__(self) -> str:
        about = "about " if self.estimated else ""
        requests = f"{self.requests} request{'' if self.requests == 1 else 's'}"
        cost = "" if self.cost is None else f", a cost of {self.cost:.4g}"
        return f"{about}{self.tokens} tokens in {requests}, {self.seconds:.3g} s{cost}"


def check_limits(limits: object) -> None:
    """Check the argument ``limits=``, if it was given.

    Raises:
        InvalidOption: it is no :class:`Limits`.
    """
    if not isinstance(limits, Limits):
        raise InvalidOption(f"limits must be Limits(…) or None, not {limits!r}")
