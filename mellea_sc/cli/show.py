"""Where a run's text and events go.

On a terminal the text grows with the lanes below it, redrawn by a task of the run's (rich would
start a thread). The picture is on standard error and goes at the end; the released text alone is
written to standard output, as it comes where that is a file or a pipe. Where standard error is no
terminal, only the summary is written there, in plain lines.

Imports rich; imported when a run is shown.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self, TextIO, cast

import anyio
import attrs
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.text import Text

from mellea_sc.backends.local import Progress
from mellea_sc.cli.lanes import LaneView, outcome_of, told_of
from mellea_sc.core.plain_text import harmless
from mellea_sc.stdlib.events import (
    CompletedEvent,
    FullValidationEvent,
    QuickCheckEvent,
    StreamEvent,
)
from mellea_sc.stdlib.stream_result import StreamChunkingResult

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
    """Shows a run while its block lasts; what can still be said is said when the block is left."""

    @property
    def is_final(self) -> bool:
        """Whether what is shown cannot be taken back."""
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
    """

    def __init__(self, labels: Sequence[str], *, explain: bool = False) -> None:
        self._explain = explain
        self._lanes = LaneView(labels)
        self._console = Console(stderr=True)
        self._out = _TextOut()
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
        if self._live is not None and self._out.is_terminal:
            self._out.show_whole(self._text)
        else:
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
        lines = self._lanes.lines(ascii_only=self._console.options.ascii_only)
        below: list[RenderableType] = [*lines, self._activity()]
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
        outcome, style = outcome_of(result)
        last = Text("  ").append(outcome, style)
        for said in told_of(result.generation):
            last.append(f", {said}", "dim")
        lines = [*self._lanes.lines(ascii_only=self._console.options.ascii_only), last]
        if self._out.is_terminal and self._console.is_terminal:
            lines.insert(0, Text())
        for line in lines:
            line.no_wrap, line.overflow = None, None
            self._console.print(line, soft_wrap=not self._console.is_terminal, highlight=False)
        if self._explain:
            story = Text(harmless(str(result.trace)), "dim")
            self._console.print(story, soft_wrap=True, highlight=False)


class JsonShow:
    """For programs: each event as a JSON object on a line of its own.

    Args:
        labels: The requirements' names, in their order.
        explain: Whether the last line tells the run's story.
    """

    is_final = False

    def __init__(self, labels: Sequence[str], *, explain: bool = False) -> None:
        self._explain = explain
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
            line["valid"] = result.completed and all(result.final_validations)
            line["generation"] = attrs.asdict(result.generation)
            if self._explain:
                line["trace"] = result.trace.to_dict()
        # ASCII throughout: a line can be read whatever the encoding, and holds no lone surrogate.
        print(json.dumps(line), flush=True)

    async def draw(self) -> None:
        """There is no picture."""


class _TextOut:
    """Standard output, for the text alone."""

    def __init__(self) -> None:
        self._file: TextIO = sys.stdout
        self.is_terminal = self._file.isatty()
        self._shown = 0
        self._last = ""
        if callable(reconfigure := getattr(self._file, "reconfigure", None)):
            reconfigure(errors="replace")  # a model can say what the file's encoding cannot

    def show(self, text: str) -> None:
        """Write what is new in a text that grows."""
        if new := text[self._shown :]:
            self._shown = len(text)
            self._last = new[-1]
            self._file.write(harmless(new) if self.is_terminal else new)
            self._file.flush()

    def show_whole(self, text: str) -> None:
        """Write a text as the picture had it: broken between words."""
        if text:
            Console(file=self._file).print(Text(harmless(text.rstrip("\n"))), highlight=False)

    def end(self) -> None:
        """End the last line, where there is text."""
        if self._last not in ("", "\n"):
            self._file.write("\n")
            self._file.flush()


def _announce(progress: Progress, announced: set[str]) -> None:
    if progress.stage == "fetching" and progress.stage not in announced:
        announced.add(progress.stage)
        size = "" if progress.total is None else f", {progress.total / 1e6:.0f} MB"
        print(f"mellea-sc: {STAGES['fetching']}{size}", file=sys.stderr, flush=True)


def _fields_of(value: StreamEvent | object) -> Mapping[str, object]:
    fields = cast("attrs.AttrsInstance", value)
    return attrs.asdict(fields, recurse=False, filter=lambda field, _: field.name != "thunk")
