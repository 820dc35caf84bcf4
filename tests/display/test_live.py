"""A live display of a stream or a thunk: in a kernel, printed, and on both event loops with a screen of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import anyio
import pytest
from kernels import Kernel
from kit import Check, always

import mellea_sc.display
from mellea_sc import (
    BackendError,
    GenerationCancelled,
    MaxWords,
    ModelOption,
    MustNotMatch,
    PartialValidationResult,
    RejectionSamplingStrategy,
    StreamConsumed,
    start_session,
)
from mellea_sc.core.backend import Backend
from mellea_sc.display import INTERVAL, SHOWN, live
from mellea_sc.testing import Fail, Pause, ScriptedBackend, Stall

STREAMED = {ModelOption.STREAM: True}


class Screen:
    """What a notebook would show: one output, and when it was changed."""

    def __init__(self) -> None:
        self.outputs: list[Mapping[str, str]] = []
        self.times: list[float] = []
        self.on_change: Callable[[], None] = lambda: None

    def display(self, bundle: Mapping[str, str], *, raw: bool, display_id: bool) -> Screen:
        assert display_id
        self.update(bundle, raw=raw)
        return self

    def update(self, bundle: Mapping[str, str], *, raw: bool) -> None:
        assert raw
        self.outputs.append(bundle)
        self.times.append(anyio.current_time())
        self.on_change()

    @property
    def pages(self) -> list[str]:
        return [one["text/html"] for one in self.outputs]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen()
    monkeypatch.setattr(mellea_sc.display, "_notebook_display", lambda: screen.display)
    return screen


def slow(words: int, pause: float) -> Backend:
    return ScriptedBackend(
        lambda _: [step for n in range(words) for step in (f"w{n} ", Pause(pause))]
    )


@pytest.mark.anyio
class TestOnBothLoops:
    async def test_a_stream_ends_as_its_result_is_shown(self, screen: Screen) -> None:
        async with start_session(backend=ScriptedBackend(["One <b>. ", "Two & three."])) as m:
            async with m.stream("x", requirements=[MaxWords(9)]) as result:
                await live(result)
            assert screen.pages[-1] == result._repr_html_()
        assert "One &lt;b&gt;. Two &amp; three." in screen.pages[-1]
        assert screen.outputs[-1]["text/plain"].startswith("One <b>. Two & three.\n[completed")

    @pytest.mark.parametrize("pause", [0.001, 0.03, 0.25])
    async def test_the_output_changes_no_oftener_than_its_interval(
        self, screen: Screen, pause: float
    ) -> None:
        async with (
            start_session(backend=slow(60, pause)) as m,
            m.stream("x", chunking=None) as result,
        ):
            await live(result)
        gaps = [
            after - before for before, after in zip(screen.times, screen.times[1:-1], strict=False)
        ]
        assert all(gap >= INTERVAL * 0.999 for gap in gaps)
        assert len(screen.times) <= 60 * pause / INTERVAL + 3

    async def test_what_is_released_is_shown_within_the_interval_and_what_stands_is_not_drawn_again(
        self, screen: Screen
    ) -> None:
        script = ["One. ", Pause(60), "Two. ", "Three. ", Pause(60), "Four."]
        async with start_session(backend=ScriptedBackend(lambda _: script)) as m:
            began = anyio.current_time()
            async with m.stream("x", chunking="word") as result:
                await live(result)
        assert len(screen.times) <= 6
        shown = dict(zip([round(at - began) for at in screen.times], screen.pages, strict=True))
        assert "One." in shown[0]
        assert "One. Two. Three." in shown[60]

    async def test_a_failed_check_shows_what_was_released_and_which_it_was(
        self, screen: Screen
    ) -> None:
        async with (
            start_session(backend=ScriptedBackend(["Good. ", "This is bad. ", "Never."])) as m,
            m.stream("x", requirements=[MaxWords(99), MustNotMatch("bad")]) as result,
        ):
            await live(result)
        assert "Good." in screen.pages[-1]
        assert "Never" not in "".join(screen.pages)
        assert "✗ fail" in screen.pages[-1]
        assert "no match of &#x27;bad&#x27;" in screen.pages[-1]
        assert "✗ no match of 'bad'" in screen.outputs[-1]["text/plain"]

    async def test_verdicts_and_text_that_was_taken_back_are_shown_while_it_runs(
        self, screen: Screen
    ) -> None:
        answers = iter(
            [["One. ", "Well, <i>. ", Pause(1), "It is bad. "], ["One. ", Pause(1), "Better."]]
        )
        async with (
            start_session(backend=ScriptedBackend(lambda _: next(answers))) as m,
            m.stream(
                "x",
                requirements=[
                    MustNotMatch("bad"),
                    Check(always(PartialValidationResult("pass")), description="any"),
                ],
                strategy=RejectionSamplingStrategy(loop_budget=2),
            ) as result,
        ):
            await live(result)
        [told] = {page for page in screen.pages if "attempt 2" in page and "running" in page}
        assert "Well, &lt;i&gt;.</s>" in told
        assert "· unknown" in told
        assert any("✓ pass" in page for page in screen.pages[:-1])
        assert "Well" not in screen.pages[-1]

    async def test_a_thunk_grows_as_it_is_read(self, screen: Screen) -> None:
        async with start_session(backend=slow(5, 1.0)) as m:
            thunk = await m.ainstruct("x", model_options=STREAMED)
            await live(thunk)
            assert thunk.value == "w0 w1 w2 w3 w4 "
        assert any("w0 w1 <" in page for page in screen.pages)
        assert screen.pages[-1] == thunk._repr_html_()

    @pytest.mark.parametrize("kind", ["stream", "thunk"])
    async def test_an_error_is_raised_after_it_was_shown(self, screen: Screen, kind: str) -> None:
        error = BackendError("it <burnt> down")
        async with start_session(backend=ScriptedBackend(["One. ", "Two. ", Fail(error)])) as m:
            shown = (
                await m.stream("x")
                if kind == "stream"
                else await m.ainstruct("x", model_options=STREAMED)
            )
            with pytest.raises(BackendError) as caught:
                await live(shown)
        assert caught.value is error
        assert "One." in screen.pages[-1]
        assert "BackendError: it &lt;burnt&gt; down" in screen.pages[-1]
        assert "BackendError: it <burnt> down" in screen.outputs[-1]["text/plain"]

    @pytest.mark.parametrize("kind", ["stream", "thunk"])
    async def test_a_cancelled_display_cancels_what_it_shows(
        self, screen: Screen, kind: str
    ) -> None:
        backend = ScriptedBackend(["One. ", "Two. ", Stall()])
        async with start_session(backend=backend) as m:
            shown = (
                await m.stream("x")
                if kind == "stream"
                else await m.ainstruct("x", model_options=STREAMED)
            )
            with anyio.move_on_after(5) as scope:
                await live(shown)
            assert scope.cancelled_caught
            assert backend.calls[0].outcome == "cancelled"
            assert "One." in screen.pages[-1]
            assert "cancelled" in screen.pages[-1]

    async def test_a_thunk_that_was_cancelled_is_shown_as_that(self, screen: Screen) -> None:
        async with start_session(backend=ScriptedBackend(["One. ", Stall()])) as m:
            thunk = await m.ainstruct("x", model_options=STREAMED)
            screen.on_change = lambda: thunk.cancel("enough") if "One" in screen.pages[-1] else None
            with pytest.raises(GenerationCancelled, match="enough"):
                await live(thunk)

    async def test_where_the_events_have_a_reader_the_run_goes_on(self, screen: Screen) -> None:
        async with start_session(backend=ScriptedBackend(["One. ", Pause(5), "Two."])) as m:
            result = await m.stream("x")
            reader = result.events()
            await anext(reader)
            with pytest.raises(StreamConsumed):
                await live(result)
            await result.acomplete()
        assert result.completed

    async def test_of_a_long_text_the_end_is_shown_while_it_grows(self, screen: Screen) -> None:
        script = [f"{'x' * SHOWN} ", "end. ", Pause(1), "y"]
        async with (
            start_session(backend=ScriptedBackend(lambda _: script)) as m,
            m.stream("x", chunking=None) as result,
        ):
            await live(result)
        assert all(len(page) < SHOWN + 1000 for page in screen.pages[:-1])
        assert "x" * SHOWN in screen.pages[-1]

    async def test_where_nothing_can_be_changed_it_is_printed_as_it_comes(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        answers = iter(
            [
                ["One. ", "Well. ", Pause(1), "It is bad\x1b[2J. "],
                ["Fine. ", Pause(1), "Better\x1b[2J."],
            ]
        )
        async with (
            start_session(backend=ScriptedBackend(lambda _: next(answers))) as m,
            m.stream(
                "x",
                requirements=[MustNotMatch("bad")],
                strategy=RejectionSamplingStrategy(loop_budget=2),
            ) as result,
        ):
            await live(result)
        printed = capsys.readouterr().out
        assert printed.startswith(
            "One. Well.\n[taken back; what counts is:]\nFine. Better[2J.\n[completed"
        )
        assert "\x1b" not in printed


BEGIN = """
from mellea_sc.display import live
from mellea_sc.testing import Pause
slow = ScriptedBackend(lambda r: [step for n in range(100) for step in (f"<{n}>. ", Pause(0.01))])
"""


def test_in_a_kernel_one_output_changes_a_bounded_number_of_times(kernel: Kernel) -> None:
    told = kernel.run(
        f"{BEGIN}\nimport time\nbegan = time.monotonic()\n"
        "async with start_session(backend=slow) as n, n.stream('hi', requirements=[MaxWords(200)]) as result:\n"
        "    await live(result)\nprint(time.monotonic() - began)"
    )
    assert "error" not in told
    assert 3 <= len(kernel.displays) <= float(told["stream"]) / INTERVAL + 3
    assert "running" in kernel.displays[1]["text/html"]
    assert "&lt;0&gt;. &lt;1&gt;." in kernel.displays[-1]["text/html"]
    assert "<svg" in kernel.displays[-1]["text/html"]


def test_interrupting_a_cell_cancels_what_it_shows(kernel: Kernel) -> None:
    kernel.run(BEGIN)
    told = kernel.run("t = await m.stream('wait')\nawait live(t)", interrupt_at="go")
    assert told["error"] == "CancelledError"
    assert kernel.interrupts == 1
    assert "cancelled" in kernel.displays[-1]["text/html"]
    assert kernel.run("outcomes()")["text/plain"] == "['cancelled']"


def test_a_cell_shows_the_error_below_what_was_released(kernel: Kernel) -> None:
    kernel.run(f"{BEGIN}\nfrom mellea_sc.testing import Fail")
    told = kernel.run(
        "n = start_session(backend=ScriptedBackend(['One. ', 'Two. ', Fail(BackendError('down'))]))\n"
        "async with n.stream('hi') as result:\n    await live(result)"
    )
    assert told["error"] == "BackendError"
    assert "One." in kernel.displays[-1]["text/html"]
    assert kernel.run("await n.aclose()").get("error") is None
