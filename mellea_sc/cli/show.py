"""Shows a run's text and events, and its requirements' verdicts as lines for people.

On a terminal the text grows with the lanes below it. A task redraws this picture (rich itself would start a thread).
The picture is on standard error and is removed at the end. Only the released text is written to standard output; to
a file or a pipe, as it comes. If standard error is no terminal, only the summary is written there, in plain lines.

Imports rich; imported when a run is shown.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TextIO, cast

import anyio
import attrs
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.text import Text

from mellea_sc.backends.local import Progress
from mellea_sc.cli.commands import Settings
from mellea_sc.cli.ending import VALID, details_of, outcome_of
from mellea_sc.cli.lines import WordWrap, console_on, hanging, story, width_of
from mellea_sc.core.plain_text import harmless
from mellea_sc.stdlib.streaming.events import (
    CompletedEvent,
    FullValidationEvent,
    QuickCheckEvent,
    RetryEvent,
    StreamEvent,
)
from mellea_sc.stdlib.streaming.result import StreamChunkingResult

FRAME: Final = 0.05
"""Seconds between two redraws of the picture."""
STAGES: Final = {
    "fetching": "fetching the model (once)",
    "verifying": "checking the model",
    "loading": "loading the model",
    "ready": "waiting for the first chunk",
}


class Show:
    """Shows a run, from :meth:`begin` to :meth:`end`.

    Args:
        labels: The requirements' names, in their order.
        settings: The settings of the command line.
    """

    def __init__(self, labels: Sequence[str], settings: Settings) -> None:
        self._labels = labels
        self._explain = settings["explain"]
        self._max_tokens = settings["max_tokens"]
        self._is_announced = False

    @property
    def is_final(self) -> bool:
        """Whether shown text cannot be retracted."""
        return False

    def begin(self) -> None:
        """Begin to show the run."""

    def end(self) -> None:
        """Write what remains to be shown of the run, and the summary."""

    def progress(self, progress: Progress) -> None:
        """Show the progress of starting the embedded model: announce once, on standard error, that it is fetched."""
        if progress.stage == "fetching" and not self._is_announced:
            self._is_announced = True
            size = "" if progress.total is None else f", {progress.total / 1e6:.0f} MB"
            print(f"mellea-sc: {STAGES['fetching']}{size}", file=sys.stderr, flush=True)

    def event(self, event: StreamEvent, result: StreamChunkingResult) -> None:
        """Show an event of the run."""
        raise NotImplementedError

    async def draw(self) -> None:
        """Redraw the picture, if there is one, until cancelled."""


class TerminalShow(Show):
    """For people: the text, and its lanes.

    Args:
        labels: The requirements' names, in their order.
        settings: The settings of the command line.
        brief: Whether the summary of a valid answer is only its time.
    """

    def __init__(self, labels: Sequence[str], settings: Settings, *, brief: bool) -> None:
        super().__init__(labels, settings)
        self._brief = brief
        self._lanes = LaneView(labels)
        self._console = console_on(sys.stderr)
        self._out = _TextOut()
        self._live: Live | None = None
        self._text = ""
        self._result: StreamChunkingResult | None = None
        self._stage = Progress("ready")
        self._began = 0.0
        self._spinner = Spinner("line" if self._console.options.ascii_only else "dots")

    @property
    def is_final(self) -> bool:
        """Whether shown text cannot be retracted: not if it is only in the picture, which is drawn anew."""
        return not self._out.is_terminal or not self._draws

    @property
    def _draws(self) -> bool:
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def begin(self) -> None:
        """Begin to draw the picture, if standard error is a terminal."""
        self._began = time.monotonic()  # in a chat, it was made before the person began to write
        if self._draws:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                get_renderable=self._picture,
            )
            self._live.start()

    def end(self) -> None:
        """Remove the picture, and write the rest of the text and the summary."""
        if self._live is not None:
            self._live.stop()
        self._out.show(self._text)
        self._out.end()
        if self._result is not None:
            self._summarise(self._result)

    def progress(self, progress: Progress) -> None:
        """Show the progress in the picture; without a picture, announce that the model is fetched."""
        self._stage = progress
        if self._live is None:
            super().progress(progress)

    def event(self, event: StreamEvent, result: StreamChunkingResult) -> None:
        """Show the released text and the verdicts."""
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


class _TextOut:
    """Standard output: as the model wrote it, or on a terminal without what a terminal would obey, broken
    between words.
    """

    def __init__(self) -> None:
        self._file: TextIO = sys.stdout
        self.is_terminal: bool = self._file.isatty()
        self._wrap = WordWrap(width_of(self._file) or 80)
        self._shown = 0
        self._last = ""
        if callable(reconfigure := getattr(self._file, "reconfigure", None)):
            reconfigure(errors="replace")  # a model can say what the file's encoding cannot

    def show(self, text: str) -> None:
        """Write what is new in a text that grows."""
        if new := text[self._shown :]:
            self._shown = len(text)
            self._last = new[-1]
            self._write(self._wrap.feed(harmless(new)) if self.is_terminal else new)

    def end(self) -> None:
        """End the last line, where there is text."""
        if self.is_terminal:
            self._write(self._wrap.end())
        if self._last not in ("", "\n"):
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            self._file.write(text)
            self._file.flush()


class JsonShow(Show):
    """For programs: each event as a JSON object on a line of its own; with ``explain`` the last has the trace."""

    def event(self, event: StreamEvent, result: StreamChunkingResult) -> None:
        """Write a line: the event's name and fields; the last one also has the outcome and the generation."""
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
        # In ASCII, so that a line can be read in any encoding, and contains no lone surrogate.
        print(json.dumps(line), flush=True)


def _fields_of(value: StreamEvent | object) -> Mapping[str, object]:
    fields = cast("attrs.AttrsInstance", value)
    return attrs.asdict(
        fields, recurse=False, filter=lambda field, _: field.name not in ("thunk", "context")
    )


LABEL: Final = 36
"""Columns of a requirement's name."""
VERDICTS: Final = 24
"""The number of last verdicts that are shown; fewer on a narrow terminal."""
FEW: Final = 8
"""Verdicts that a narrow terminal keeps room for."""
MARKS: Final = {"unknown": "·", "pass": "✓", "fail": "✗", "again": "↻"}
ASCII_MARKS: Final = {"unknown": ".", "pass": "+", "fail": "x", "again": "|"}
MEANINGS: Final = {
    "unknown": "open",
    "pass": "passed",
    "fail": "failed",
    "again": "another attempt",
}
STYLES: Final = {"unknown": "dim", "pass": "green", "fail": "bold red", "again": "yellow"}


@attrs.define(eq=False)
class _Lane:
    label: str
    verdicts: list[str] = attrs.field(factory=list[str])
    final: str | None = None
    why: str | None = None

    @property
    def state(self) -> str:
        """The lane's verdict on the last attempt."""
        begun = len(self.verdicts)
        while begun and self.verdicts[begun - 1] != "again":
            begun -= 1
        return "fail" if "fail" in self.verdicts[begun:] else self.final or "unknown"


class LaneView:
    """The verdicts of a run's lanes so far.

    Args:
        labels: The requirements' names, in their order.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._lanes = [_Lane(label) for label in labels]

    def add(self, event: StreamEvent) -> None:
        """Process an event."""
        match event:
            case QuickCheckEvent():
                for lane, verdict in zip(self._lanes, event.results, strict=True):
                    lane.verdicts.append(verdict.success)
                    if verdict.success == "fail":
                        lane.why = _because(f"chunk {event.chunk_index}", verdict.reason)
            case RetryEvent():
                for lane in self._lanes:
                    lane.verdicts.append("again")
                    lane.final = lane.why = None
            case FullValidationEvent():
                for lane, final in zip(self._lanes, event.results, strict=True):
                    lane.final = "pass" if final else "fail"
                    lane.why = _because("the whole text", final.reason) if not final else None
            case _:
                pass

    def lines(self, console: Console) -> Iterator[Text]:
        """A line for each requirement with its verdicts, more lines if its reason is long, and a legend."""
        if not self._lanes:
            return
        marks = ASCII_MARKS if console.options.ascii_only else MARKS
        labels = max(cell_len(_in_a_line(lane.label)) for lane in self._lanes)
        room = console.width - len("  ✓   ") if console.is_terminal else LABEL + VERDICTS
        width = max(min(LABEL, labels, room - FEW), 1)
        verdicts = max(min(VERDICTS, room - width), 1)
        for lane in self._lanes:
            yield from _lines_of(lane, console, marks, width, verdicts)
        if any(lane.verdicts for lane in self._lanes):
            yield from hanging(console, "  ", "  ", self._legend(marks))

    def _legend(self, marks: dict[str, str]) -> Text:
        seen = {mark for lane in self._lanes for mark in [lane.state, *lane.verdicts]}
        said = [f"{marks[mark]} {meaning}" for mark, meaning in MEANINGS.items() if mark in seen]
        return Text(f"one mark for each chunk: {', '.join(said)}", "dim")


def _because(where: str, reason: str | None) -> str:
    return where if reason is None else f"{where}: {reason}"


def _in_a_line(text: str) -> str:
    return " ".join(harmless(text).split())


def _lines_of(
    lane: _Lane, console: Console, marks: dict[str, str], width: int, verdicts: int
) -> Iterator[Text]:
    line = Text("  ").append(f"{marks[lane.state]} ", STYLES[lane.state])
    label = Text(_in_a_line(lane.label))
    label.truncate(width, overflow="ellipsis", pad=True)
    line.append_text(label).append("  ")
    for verdict in lane.verdicts[-verdicts:]:
        line.append(marks[verdict], STYLES[verdict])
    why = Text("" if lane.why is None else _in_a_line(lane.why), "red")
    if not console.is_terminal or line.cell_len + 2 + why.cell_len <= console.width:
        yield line.append_text(Text("  ").append_text(why)) if why else line
        return
    yield line
    yield from hanging(console, "      ", "      ", why)
