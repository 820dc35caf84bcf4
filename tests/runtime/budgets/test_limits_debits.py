"""What is debited, when, and by how much."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from limits_help import ASKED, ask, request, server_of, silent, text_of, words

from mellea_sc import BudgetExceeded, Delta, InvalidOption, limits, start_session
from mellea_sc.backends import Usage
from mellea_sc.core import Limits, Prices
from mellea_sc.testing import Script, ScriptedBackend, Stall

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


# --- each limit ------------------------------------------------------------------------------------


async def test_tokens_used_exactly_are_fine() -> None:
    async with start_session(backend=server_of(9)) as m:
        with limits(tokens=10) as spent:
            assert await (await ask(m)) == text_of(9)
    assert (spent.prompt_tokens, spent.completion_tokens, spent.tokens) == (1, 9, 10)
    assert (spent.requests, spent.estimated, spent.cost) == (1, False, None)


async def test_one_token_more_cancels_and_raises() -> None:
    backend = server_of(10)
    async with start_session(backend=backend) as m:
        with pytest.raises(BudgetExceeded) as caught, limits(tokens=10) as spent:
            await (await ask(m))
        error = caught.value
        assert (error.limit, error.allowed, error.partial_text) == ("tokens", 10, text_of(10))
        assert error.spent == spent.spent
        assert (error.spent.tokens, error.spent.estimated, error.usage) == (11, True, None)
        assert str(error) == "more than 10 tokens: about 11 tokens in 1 request, 1 s"
        await anyio.lowlevel.checkpoint()
    assert backend.calls[0].outcome == "cancelled"
    assert backend.calls[0].deltas_sent == 10


async def test_the_request_that_is_one_too_many_is_never_sent() -> None:
    backend = server_of(3)
    async with start_session(backend=backend) as m:
        with limits(requests=2) as fine:
            await (await ask(m))
            await (await ask(m))
        with pytest.raises(BudgetExceeded) as caught, limits(requests=2):
            for _ in range(3):
                await (await ask(m))
    assert fine.requests == 2
    assert len(backend.calls) == 4
    assert (caught.value.limit, caught.value.allowed) == ("requests", 2)
    assert caught.value.spent.requests == 2
    assert caught.value.partial_text == text_of(3), "what was generated last"


async def test_a_prompt_that_is_too_long_is_never_sent() -> None:
    backend = server_of(1)
    async with start_session(backend=backend) as m:
        with pytest.raises(BudgetExceeded) as caught, limits(tokens=10):
            await (await ask(m, "x" * 44))
        with limits(tokens=11 + 1):
            await (await ask(m, "x" * 44))
    assert len(backend.calls) == 1
    assert (caught.value.spent.tokens, caught.value.spent.requests) == (0, 0)


async def test_time_is_counted_from_entering_the_block() -> None:
    backend = server_of(100)
    async with start_session(backend=backend) as m:
        with pytest.raises(BudgetExceeded) as caught, limits(seconds=2) as spent:
            await anyio.sleep(1)
            await (await ask(m))
        assert caught.value.limit == "seconds"
        assert str(caught.value).startswith("more than 2 s: about ")
        assert caught.value.partial_text == text_of(9)
        assert spent.seconds == pytest.approx(2)
    assert backend.calls[0].outcome == "cancelled"


async def test_time_without_any_request_counts_too() -> None:
    with pytest.raises(BudgetExceeded) as caught, limits(seconds=3) as spent:
        await anyio.sleep_forever()
    assert caught.value.spent == spent.spent
    assert (caught.value.partial_text, caught.value.usage) == ("", None)
    assert spent.seconds == pytest.approx(3)
    await anyio.sleep(1)
    assert spent.seconds == pytest.approx(3)


async def test_no_request_is_sent_when_the_time_is_over() -> None:
    backend = server_of(1)
    async with start_session(backend=backend) as m:
        place = await m.backend.place()  # so that nothing has to be waited for any more
        await place.nursery.connection()
        with pytest.raises(BudgetExceeded) as caught, limits(seconds=0):
            async with m.backend.open(request(ASKED)):
                raise AssertionError("not reached")
    assert backend.calls == []
    assert caught.value.limit == "seconds"


async def test_cost_is_by_the_prices_of_prompt_and_completion() -> None:
    prices = Prices(prompt=1_000_000, completion=100_000)
    async with start_session(backend=server_of(10)) as m:
        with limits(cost=2, prices=prices) as spent:
            await (await ask(m))
        assert spent.cost == pytest.approx(2)
        with pytest.raises(BudgetExceeded) as caught, limits(cost=1.95, prices=prices):
            await (await ask(m))
        assert (caught.value.limit, caught.value.allowed) == ("cost", 1.95)
        assert caught.value.spent.cost == pytest.approx(2)
        assert str(caught.value).startswith("more than a cost of 1.95: about 11 tokens")


async def test_sums_of_money_that_come_out_exactly_are_not_exceeded() -> None:
    prices = Prices(prompt=0, completion=100_000)
    async with start_session(backend=server_of(3)) as m:
        with limits(cost=0.3, prices=prices) as spent:  # 0.1 + 0.1 + 0.1 is more, in floats
            await (await ask(m))
    assert spent.cost == pytest.approx(0.3)


async def test_a_model_without_a_price_is_an_error_before_anything_is_sent() -> None:
    backend = server_of(3)
    async with start_session(backend=backend) as m:
        with limits(prices={"scripted": Prices(prompt=1e6, completion=0)}) as spent:
            await (await ask(m))
        assert spent.cost == 1
        with limits(prices={"other": Prices(prompt=1, completion=1)}):
            thunk = await ask(m)
            with pytest.raises(InvalidOption, match="scripted"):
                await thunk
    assert len(backend.calls) == 1


async def test_without_limits_it_only_counts() -> None:
    async with start_session(backend=server_of(5)) as m:
        with limits() as spent:
            await (await ask(m))
            assert spent.seconds == pytest.approx(0.5)
    assert repr(spent) == "<LimitedBlock: 6 tokens in 1 request, 0.5 s>"


# --- the estimate, and what the server says ------------------------------------------------------------


async def test_short_deltas_are_a_token_each_and_long_ones_a_quarter_of_their_characters() -> None:
    async with start_session(backend=ScriptedBackend(silent(["a", "", "b", "c"]))) as m:
        with limits() as spent:
            await (await ask(m))
    assert (spent.completion_tokens, spent.estimated) == (3, True)
    async with start_session(backend=ScriptedBackend(silent(["x" * 30, "y" * 10]))) as m:
        with limits() as spent:
            await (await ask(m))
    assert spent.completion_tokens == 10


async def test_every_message_of_the_prompt_is_estimated() -> None:
    async with start_session(backend=server_of(0)) as m:
        with limits() as spent:
            async with m.backend.open(request("", "abc", "x" * 23)):
                assert (spent.prompt_tokens, spent.requests) == (1 + 1 + 5, 1)
                assert spent.estimated


async def test_what_the_server_says_takes_the_place_of_a_low_estimate() -> None:
    backend = ScriptedBackend(words(3, usage=Usage(5, 6)))
    async with start_session(backend=backend) as m:
        with limits(tokens=11) as spent:
            await (await ask(m))
    assert (spent.prompt_tokens, spent.completion_tokens, spent.estimated) == (5, 6, False)


async def test_what_the_server_says_can_be_too_much_when_the_text_is_complete() -> None:
    backend = ScriptedBackend(words(3, usage=Usage(5, 6)))
    async with start_session(backend=backend) as m:
        with pytest.raises(BudgetExceeded) as caught, limits(tokens=10):
            await (await ask(m))
    assert caught.value.partial_text == text_of(3)
    assert caught.value.usage == Usage(5, 6)
    assert not caught.value.spent.estimated


async def test_what_the_server_says_takes_the_place_of_a_high_estimate() -> None:
    backend = ScriptedBackend(lambda _: words(10, usage=Usage(1, 2)))
    async with start_session(backend=backend) as m:
        with limits(tokens=3 + 11) as spent:  # the second alone would be 14, uncorrected
            await (await ask(m))
            assert spent.tokens == 3
            await (await ask(m))
    assert spent.tokens == 6


async def test_a_server_that_counts_on_the_way_is_believed_at_once() -> None:
    steps = ["a", Delta("b", usage=Usage(3, 40)), "c", "d", Delta(finish_reason="stop")]
    async with start_session(backend=ScriptedBackend(steps)) as m:
        with limits() as spent:
            async with m.backend.open(request(ASKED)) as deltas:
                seen = [(delta.text, spent.tokens, spent.estimated) async for delta in deltas]
    assert seen == [
        ("a", 2, True),
        ("b", 43, False),
        ("c", 44, True),
        ("d", 45, True),
        ("", 45, True),
    ]


async def test_a_server_that_says_nothing_but_zeros_is_not_believed() -> None:
    steps = ["a", "b", Delta(finish_reason="stop", usage=Usage(0, 0))]
    async with start_session(backend=ScriptedBackend(steps)) as m:
        with limits() as spent:
            await (await ask(m))
    assert (spent.prompt_tokens, spent.completion_tokens, spent.estimated) == (1, 2, True)


# --- raw requests -----------------------------------------------------------------------------------


async def test_a_raw_request_is_debited_and_its_block_cancelled() -> None:
    backend = ScriptedBackend(["a", "b", Stall()])
    async with start_session(backend=backend) as m:
        with pytest.raises(BudgetExceeded) as caught, limits(tokens=2):
            async with m.backend.open(request(ASKED)) as deltas:
                read = 0
                async for _ in deltas:
                    read += 1
                    if read == 2:
                        await anyio.sleep_forever()
    assert caught.value.partial_text == "ab"
    assert backend.calls[0].outcome == "cancelled"


async def test_whoever_reads_on_without_a_checkpoint_gets_no_further_delta() -> None:
    backend = ScriptedBackend(["a", "b", "c"])
    async with start_session(backend=backend) as m:
        with pytest.raises(BudgetExceeded), limits(tokens=2):
            async with m.backend.open(request(ASKED)) as deltas:
                with pytest.raises(BudgetExceeded) as caught:
                    async for _ in deltas:
                        pass
                assert caught.value.partial_text == "ab"
    assert backend.calls[0].deltas_sent == 2


async def test_no_request_is_sent_under_a_budget_that_is_exceeded() -> None:
    backend = ScriptedBackend(["a", "b"])
    async with start_session(backend=backend) as m:
        with pytest.raises(BudgetExceeded), limits(tokens=1):
            for _ in range(2):
                with anyio.CancelScope(shield=True), pytest.raises(BudgetExceeded):
                    async with m.backend.open(request(ASKED)) as deltas:
                        await deltas.__anext__()
    assert len(backend.calls) == 1


async def test_whoever_stops_reading_at_the_delta_too_many_is_told_all_the_same() -> None:
    backend = ScriptedBackend(["a", "b"])
    async with start_session(backend=backend) as m:
        with (
            pytest.raises(BudgetExceeded) as outer,
            limits(tokens=1),
            pytest.raises(BudgetExceeded, match="more than 1 tokens") as caught,
        ):
            async with m.backend.open(request(ASKED)) as deltas:
                await deltas.__anext__()
    assert caught.value.raised_elsewhere
    assert not outer.value.raised_elsewhere


# --- after the block ---------------------------------------------------------------------------------


async def test_what_goes_on_after_the_block_is_still_limited_and_its_error_is_not_lost() -> None:
    backend = server_of(20)
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=backend) as m:
            with limits(tokens=10) as spent:
                thunk = await ask(m)
            await thunk.wait_finished()
            assert spent.seconds == pytest.approx(1)
    [error] = caught.value.exceptions
    assert isinstance(error, BudgetExceeded)
    assert error is thunk.error
    assert not error.raised_elsewhere
    assert thunk.cancelled


async def test_awaiting_what_has_exceeded_a_block_that_was_left_raises_the_same_each_time() -> None:
    async with start_session(backend=server_of(20)) as m:
        with limits(tokens=10):
            thunk = await ask(m)
        errors: list[BudgetExceeded] = []
        for _ in range(2):
            with pytest.raises(BudgetExceeded) as caught:
                await thunk
            errors.append(caught.value)
        assert errors[0] is errors[1] is thunk.error
        assert repr(thunk).startswith("<ModelOutputThunk cancelled: ")


async def test_a_strict_session_is_cancelled_by_a_limit_of_nobody_elses() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=server_of(20), on_error="cancel") as m:
            with limits(tokens=10):
                await ask(m)
            await anyio.sleep_forever()
    [error] = caught.value.exceptions
    assert isinstance(error, BudgetExceeded)


async def test_a_strict_session_goes_on_when_the_block_tells_of_it() -> None:
    async with start_session(backend=server_of(20), on_error="cancel") as m:
        with pytest.raises(BudgetExceeded), limits(tokens=10):
            await (await ask(m))
        with limits(tokens=21):
            assert await (await ask(m))


async def test_a_request_of_a_left_block_counts_its_time_again() -> None:
    async with start_session(backend=server_of(10)) as m, anyio.create_task_group() as tasks:
        begin = anyio.Event()

        async def later() -> None:
            await begin.wait()
            await (await ask(m))

        with limits() as spent:
            tasks.start_soon(later)
        await anyio.sleep(5)
        assert spent.seconds == 0
        begin.set()
        await anyio.sleep(0.5)
        assert spent.seconds == pytest.approx(5.5)
    assert spent.seconds == pytest.approx(6)


async def test_limits_are_values_for_many_blocks() -> None:
    allowed = Limits(requests=1)
    async with start_session(backend=server_of(1)) as m:
        for _ in range(2):
            with limits(requests=allowed.requests):
                await (await ask(m))


async def test_script_without_text() -> None:
    async with start_session(backend=ScriptedBackend(Script([], usage=Usage(2, 0)))) as m:
        with limits() as spent:
            await (await ask(m))
    assert (spent.tokens, spent.estimated) == (2, False)
