"""Shows a run's text and events.

On a terminal the text grows with the lanes below it. A task redraws this picture (rich itself would start a thread).
The picture is on standard error and is removed at the end. Only the released text is written to standard output; to
a file or a pipe, as it comes. If standard error is no terminal, only the summary is written there, in plain lines.

Imports rich; imported when a run is shown.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self, cast

import anyio
import attrs
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.text import Text

from mellea_sc.backends.local import Progress
from mellea_sc.cli.ending import VALID
from mellea_sc.cli.lanes import LaneView
from mellea_sc.cli.lines import console_on, hanging, story
from mellea_sc.cli.outcome import details_of, outcome_of
from mellea_sc.cli.text_out import TextOut
from mellea_sc.core.plain_text import harmless
from mellea_sc.stdlib.streaming.events import (
    CompletedEvent,
    FullValidationEvent,
    QuickCheckEvent,
    StreamEvent,
)
from mellea_sc.stdlib.streaming.result import StreamChunkingResult

__all__ = ["JsonShow", "Show", "TerminalShow"]

FRAME: Final = 0.05
"""Seconds between two pictures."""
STAGES: Final = {
    "fetching": "fetching the model (once)",
    "verifying": "checking the model",
    "loading": "loading the model",
    "ready": "waiting for the first chunk",
}


class Show(Protocol):
    """Shows a run while its block lasts; leaving the block, also by an error, writes the summary."""

    @property
    def is_final(self) -> bool:
        """Whether shown text cannot be retracted."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...

    def progress(self, progress: Progress) -> None:
        """The embedded model is on its way."""
        ...

    def event(self, event: StreamEvent, result: StreamChunkingResult) -> None:
        """Something has happened in the run."""
        ...

    async def draw(self) -> None:
        """Keep the picture moving, until cancelled."""
        ...


class TerminalShow:
    """For people: the text, and its lanes.

    Args:
        labels: The requirements' names, in their order.
        explain: Whether to tell the run's story at the end.
        max_tokens: How long the answer may be, if that was said.
        brief: Whether there is nothing to tell of an answer that is valid but its time.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        explain: bool = False,
        max_tokens: int | None = None,
        brief: bool = False,
    ) -> None:
        self._explain = explain
        self._max_tokens = max_tokens
        self._brief = brief
        self._lanes = LaneView(labels)
        self._console = console_on(sys.stderr)
        self._out = TextOut()
        self._live: Live | None = None
        self._text = ""
        self._result: StreamChunkingResult | None = None
        self._stage = Progress("ready")
        self._announced: set[str] = set()
        self._began = time.monotonic()
        self._spinner = Spinner("line" if self._console.options.ascii_only else "dots")

    @property
    def is_final(self) -> bool:
        """The picture on a terminal can be drawn anew; a pipe or a file keeps what it got."""
        return not self._out.is_terminal or not self._draws

    @property
    def _draws(self) -> bool:
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def __enter__(self) -> Self:
        if self._draws:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                get_renderable=self._picture,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
        self._out.show(self._text)
        self._out.end()
        if self._result is not None:
            self._summarise(self._result)

    def progress(self, progress: Progress) -> None:
        """Show how far the model is; without a picture, say once that it is fetched."""
        self._stage = progress
        if self._live is None:
            _announce(progress, self._announced)

    def event(self, event: StreamEvent, result: StreamChunkingResult) -> None:
        """Show what is released, and the verdicts."""
        self._result = result
        self._lanes.add(event)
        self._text = result.full_text
        if self._live is None or not self._out.is_terminal:
            self._out.show(self._text)

    async def draw(self) -> None:
        """Redraw the picture."""
        while self._live is not None:
            self._live.refresh()
            await anyio.sleep(FRAME)

    def _picture(self) -> RenderableType:
        below: list[RenderableType] = [*self._lanes.lines(self._console), self._activity()]
        if not self._out.is_terminal:
            return Group(*below)
        room = max(1, self._console.height - len(below) - 2)
        return Group(*self._end_of_text(room), "", *below)

    def _end_of_text(self, rows: int) -> list[Text]:
        paragraphs = harmless(self._text).split("\n")[-rows:]
        wrapped = [
            line
            for paragraph in paragraphs
            for line in Text(paragraph).wrap(self._console, self._console.width)
        ]
        return wrapped[-rows:]

    def _activity(self) -> RenderableType:
        stage, seconds = self._stage, time.monotonic() - self._began
        words = "generating" if self._text else STAGES[stage.stage]
        bar: list[RenderableType] = []
        if not self._text and stage.done is not None and stage.total is not None:
            words += f"  {stage.done / 1e6:.0f} of {stage.total / 1e6:.0f} MB"
            bar.append(ProgressBar(stage.total, stage.done, width=40))
        self._spinner.update(text=Text(f"{words}  {seconds:.1f} s", "dim"))
        return Group(self._spinner, *bar)

    def _summarise(self, result: StreamChunkingResult) -> None:
        outcome, details = outcome_of(result, self._max_tokens), details_of(result)
        lines: list[Text] = []
        if self._brief and outcome.status == VALID and not self._explain:
            details = [one for one in details if one.endswith("in all")]
        else:
            lines += self._lanes.lines(self._console)
        last = (
            Text()
            .append(outcome.words, outcome.style)
            .append("".join(f", {one}" for one in details), "dim")
        )
        lines += hanging(self._console, "  ", "  ", last)
        if self._explain:
            lines += story(self._console, harmless(str(result.trace)))
        if self._out.is_terminal and self._console.is_terminal and not self._brief:
            lines.insert(0, Text())
        for line in lines:
            self._console.print(line, soft_wrap=True, highlight=False)


class JsonShow:
    """For programs: each event as a JSON object on a line of its own.

    Args:
        labels: The requirements' names, in their order.
        explain: Whether the last line tells the run's story.
        max_tokens: How long the answer may be, if that was said.
    """

    is_final = False

    def __init__(
        self, labels: Sequence[str], *, explain: bool = False, max_tokens: int | None = None
    ) -> None:
        self._explain = explain
        self._max_tokens = max_tokens
        self._labels = labels
        self._announced: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        pass

    def progress(self, progress: Progress) -> None:
        """Say once, on standard error, that the model is fetched."""
        _announce(progress, self._announced)

    def event(self, event: StreamEvent, result: StreamChunkingResult) -> None:
        """Write a line: the event's name and fields; with the last, what is known of the generation."""
        line: dict[str, object] = {"event": type(event).__name__, **_fields_of(event)}
        if isinstance(event, QuickCheckEvent | FullValidationEvent):
            line["results"] = [
                {"requirement": label, **_fields_of(verdict)}
                for label, verdict in zip(self._labels, event.results, strict=True)
            ]
        if isinstance(event, CompletedEvent):
            outcome = outcome_of(result, self._max_tokens)
            line["valid"], line["outcome"] = outcome.status == VALID, outcome.words
            line["generation"] = attrs.asdict(result.generation)
            if self._explain:
                line["trace"] = result.trace.to_dict()
        # ASCII throughout: a line can be read whatever the encoding, and holds no lone surrogate.
        print(json.dumps(line), flush=True)

    async def draw(self) -> None:
        """There is no picture."""


def _announce(progress: Progress, announced: set[str]) -> None:
    if progress.stage == "fetching" and progress.stage not in announced:
        announced.add(progress.stage)
        size = "" if progress.total is None else f", {progress.total / 1e6:.0f} MB"
        print(f"mellea-sc: {STAGES['fetching']}{size}", file=sys.stderr, flush=True)


def _fields_of(value: StreamEvent | object) -> Mapping[str, object]:
    fields = cast("attrs.AttrsInstance", value)
    return attrs.asdict(fields, recurse=False, filter=lambda field, _: field.name != "thunk")
