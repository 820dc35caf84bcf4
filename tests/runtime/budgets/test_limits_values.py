"""The values: limits, prices, what was spent, and the error."""

from __future__ import annotations

import copy
import math
import pickle

import pytest

from mellea_sc import BudgetExceeded, InvalidOption, limits
from mellea_sc.backends import Usage
from mellea_sc.core import Limits, Prices, Spent
from mellea_sc.stdlib import LimitedBlock

PRICES = Prices(prompt=1, completion=2.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": -1},
        {"tokens": 1.5},
        {"tokens": True},
        {"tokens": "many"},
        {"requests": -1},
        {"requests": 0.5},
        {"seconds": -0.1},
        {"seconds": math.nan},
        {"seconds": math.inf},
        {"seconds": "long"},
        {"seconds": True},
        {"cost": -1, "prices": PRICES},
        {"cost": 1},
        {"prices": 3},
        {"prices": {"a": 3}},
    ],
)
def test_an_argument_that_cannot_be_used_is_an_error_that_names_it(
    wrong: dict[str, object],
) -> None:
    for make in (limits, Limits):
        with pytest.raises(InvalidOption, match=next(iter(wrong))):
            make(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"prompt": None}, {"prompt": -1}, {"completion": "2"}])
def test_a_price_is_a_number(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        Prices(**{"prompt": 1, "completion": 1, **wrong})  # type: ignore[arg-type]


def test_nothing_and_zero_are_limits_too() -> None:
    assert Limits() == Limits(tokens=None, prices=None)
    assert Limits(tokens=0, requests=0, seconds=0, cost=0, prices=PRICES).tokens == 0


def test_prices_are_for_every_model_or_by_model() -> None:
    assert Limits().prices_of("any") is None
    assert Limits(prices=PRICES).prices_of("any") is PRICES
    named = Limits(prices={"small": PRICES})
    assert named.prices_of("small") is PRICES
    with pytest.raises(InvalidOption, match="'big'"):
        named.prices_of("big")


def test_what_was_spent_can_be_read_by_people() -> None:
    spent = Spent(prompt_tokens=3, completion_tokens=4, requests=1, seconds=1.25)
    assert spent.tokens == 7
    assert str(spent) == "7 tokens in 1 request, 1.25 s"
    assert (
        str(Spent(requests=2, cost=0.5, estimated=True))
        == "about 0 tokens in 2 requests, 0 s, a cost of 0.5"
    )


def test_a_block_that_was_not_entered_has_spent_nothing() -> None:
    block = limits(tokens=3)
    assert block.limits == Limits(tokens=3)
    assert (block.prompt_tokens, block.completion_tokens, block.tokens) == (0, 0, 0)
    assert (block.requests, block.seconds, block.cost, block.estimated) == (0, 0.0, None, False)
    assert repr(block) == "<LimitedBlock: 0 tokens in 0 requests, 0 s>"


def test_a_block_is_entered_once() -> None:
    block = limits()
    with block:
        pass
    with pytest.raises(InvalidOption, match="once"), block:
        pass


def test_a_block_is_made_of_limits() -> None:
    with pytest.raises(InvalidOption, match="limits must be"):
        LimitedBlock({"tokens": 1})  # type: ignore[arg-type]


def test_the_error_can_be_copied_and_sent() -> None:
    error = BudgetExceeded(
        "more than 3 tokens",
        limit="tokens",
        allowed=3,
        spent=Spent(completion_tokens=4, requests=1),
        partial_text="one two",
        usage=Usage(1, 2),
    )
    for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert str(same) == "more than 3 tokens: 4 tokens in 1 request, 0 s"
        assert (same.reason, same.limit, same.allowed) == ("more than 3 tokens", "tokens", 3)
        assert (same.spent, same.partial_text, same.usage) == (
            error.spent,
            "one two",
            Usage(1, 2),
        )
