"""Traces, thunks and results as pictures and HTML, for pages and notebooks."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import anyio
import pytest

from mellea_sc import MustNotMatch, RejectionSamplingStrategy, check, simple_validate, start_session
from mellea_sc.core import Trace
from mellea_sc.core.trace import Cause
from mellea_sc.testing import Pause, ScriptedBackend, Stall

SVG = "{http://www.w3.org/2000/svg}"

TREE = Trace(
    what='Write <b>"x" & y</b>, please, and make it as long as you can manage to',
    outcome="accepted",
    began=0.0,
    ended=2.0,
    children=[
        Trace(
            what="attempt 1",
            outcome="failed",
            began=0.0,
            ended=0.5,
            cause=Cause(kind="requirement", who="no <i>", at=0.5),
            children=[Trace(what="judge", outcome="answered", began=0.1, ended=0.2)],
        ),
        Trace(what="attempt 2", outcome="accepted", began=0.5, ended=2.0),
    ],
)


def bars(svg: str) -> list[tuple[str, float, float]]:
    """For each row of a picture: its tooltip's first words, and where its bar begins and ends."""
    found = []
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        title, _, bar = group.find(f"{SVG}title"), *group.findall(f"{SVG}rect")
        assert title is not None
        begin = float(bar.attrib["x"])
        found.append(((title.text or "").split(",")[0], begin, begin + float(bar.attrib["width"])))
    return found


def test_a_picture_has_a_bar_for_each_node_on_one_time_axis() -> None:
    told = bars(TREE.to_svg())
    assert [name for name, _, _ in told[1:]] == [
        "attempt 1: failed",
        "judge: answered",
        "attempt 2: accepted",
    ]
    [(_, begin, end), first, judge, second] = told
    a_second = (end - begin) / 2
    assert first[1:] == pytest.approx((begin, begin + 0.5 * a_second), abs=0.2)
    assert judge[1:] == pytest.approx((begin + 0.1 * a_second, begin + 0.2 * a_second), abs=0.2)
    assert second[1:] == pytest.approx((begin + 0.5 * a_second, end), abs=0.2)


def test_only_what_was_ended_is_marked() -> None:
    svg = TREE.to_svg()
    assert svg.count("✕") == 1
    marked = [
        group
        for group in ET.fromstring(svg).iter(f"{SVG}g")
        if any(text.text == "✕" for text in group.iter(f"{SVG}text"))
    ]
    title = marked[0].find(f"{SVG}title")
    assert title is not None
    assert "because of requirement no <i>" in (title.text or "")


@pytest.mark.parametrize("ended", [0.0, 1e-6, 0.004, 0.09, 1.0, 3.7, 60.0, 86_400.0])
def test_the_axis_has_some_round_times_up_to_the_end(ended: float) -> None:
    svg = Trace(what="x", outcome="running", began=0.0, ended=ended).to_svg()
    times = [
        float(text.text.removesuffix(" s"))
        for text in ET.fromstring(svg).iter(f"{SVG}text")
        if text.text is not None and text.text.endswith(" s")
    ]
    assert 4 <= len(times) <= 12
    assert times[0] == 0
    assert times[-1] <= max(ended, 1e-3) * 1.000001


def test_what_stands_in_a_trace_is_text_and_no_markup() -> None:
    page = TREE.to_html()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    parser = HTMLParser()
    parser.feed(page)
    parser.close()


@pytest.mark.anyio
async def test_a_thunk_shows_its_answer_and_not_its_prompt() -> None:
    async with start_session(backend=ScriptedBackend(["5 < 7\n  indeed"])) as m:
        thunk = await m.ainstruct("Is 5 < 7?", await_result=True)
    assert "5 &lt; 7\n  indeed" in thunk._repr_html_()
    assert "computed" in thunk._repr_html_()


@pytest.mark.anyio
async def test_a_running_thunk_is_shown_without_waiting() -> None:
    async with start_session(backend=ScriptedBackend([Stall()])) as m:
        thunk = await m.ainstruct("x")
        assert "generating" in thunk._repr_html_()
        thunk.cancel()
        with anyio.fail_after(60):
            await thunk.wait_finished()
        assert "cancelled" in thunk._repr_html_()


@pytest.mark.anyio
async def test_a_result_shows_its_text_its_verdicts_and_its_trace() -> None:
    answers = iter(["No <way>.", "Yes."])
    async with start_session(backend=ScriptedBackend(lambda _: next(answers))) as m:
        thunk = await m.ainstruct(
            "x",
            requirements=[
                check("says yes", validation_fn=simple_validate(lambda text: "Yes" in text))
            ],
            strategy=RejectionSamplingStrategy(loop_budget=2),
            await_result=True,
        )
    assert thunk.sampling is not None
    shown = thunk.sampling._repr_html_()
    assert "attempt 2 of 2" in shown
    assert "<td" in shown
    assert "says yes" in shown
    assert "<svg" in shown


@pytest.mark.anyio
async def test_a_stream_shows_what_was_released_and_what_failed() -> None:
    script = ["Good. ", Pause(0.01), "Bad <thing>. ", Stall()]
    async with start_session(backend=ScriptedBackend(script)) as m:
        async with m.stream("x", requirements=[MustNotMatch("Bad")]) as result:
            assert "running" in result._repr_html_()
            await result.acomplete()
        shown = result._repr_html_()
    assert "Good." in shown
    assert "Bad <" not in shown
    assert "stopped by a failed check" in shown
    assert ">✗ fail<" in shown
