"""Shows a checked stream or a thunk live: one output of a notebook's cell that is updated while the cell runs.

::

    result.events() ──> view ──at most every INTERVAL──> one output of the cell, changed in place

Outside of a notebook (a script, IPython in a terminal), the text is printed as it is released.
"""

from __future__ import annotations

import html
import sys
from collections.abc import AsyncIterator, Mapping
from importlib import import_module
from typing import Final, Protocol, cast

import anyio
import attrs

from mellea_sc.core.picture import aside, table_of, text_of_answer
from mellea_sc.core.plain_text import harmless
from mellea_sc.core.requirement import label_of
from mellea_sc.runtime.failures import raises_briefly
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib.streaming.events import (
    ChunkEvent,
    FullValidationEvent,
    QuickCheckEvent,
    ReasoningEvent,
    RetractEvent,
    RetryEvent,
    StreamEvent,
)
from mellea_sc.stdlib.streaming.result import StreamChunkingResult

__all__ = ["live"]

INTERVAL: Final = 0.1
"""Seconds between two updates of the output."""
SHOWN: Final = 20_000
"""How many of the last characters are shown while the text grows: each update sends all of them to the front end."""


@raises_briefly
async def live(shown: StreamChunkingResult | ModelOutputThunk) -> None:
    """Show a stream or a thunk while it is generated, and at its end a summary.

    ::

        async with m.stream("…", requirements=[…]) as result:
            await live(result)

    It is the one reader of ``result.events()``, or of the thunk's deltas (which need ``ModelOption.STREAM``).

    Args:
        shown: The stream's result, or the thunk.

    Raises:
        StreamConsumed: the events have another reader.
        anyio.BusyResourceError: another task is reading the thunk.
        WrongEventLoop: it runs in another event loop.
        Exception: the error that ended it, as itself, after it was shown.

    Cancellation: what is shown is cancelled too, and its cleanup is waited for; so it is when the cell is interrupted.
    """
    view = _View(shown)
    screen = _screen(view)
    try:
        await _follow(
            view, _Deltas(shown) if isinstance(shown, ModelOutputThunk) else shown.events(), screen
        )
        if isinstance(shown, StreamChunkingResult):
            await shown.acomplete()
    except anyio.get_cancelled_exc_class():
        shown.cancel("its display was cancelled")
        with anyio.CancelScope(shield=True):
            await shown.wait_finished()
        raise
    finally:
        view.ended = True
        screen.show(view)


async def _follow(view: _View, events: AsyncIterator[StreamEvent], screen: _Screen) -> None:
    """Take the events as they come; update the output at once, or when the last update is long enough ago."""
    due = anyio.current_time() + INTERVAL
    changed = False
    while True:
        with anyio.CancelScope(deadline=due if changed else float("inf")) as waiting:
            try:
                view.take(await anext(events))
            except StopAsyncIteration:
                return
            changed = True
        if changed and (waiting.cancelled_caught or anyio.current_time() >= due):
            screen.show(view)
            due, changed = anyio.current_time() + INTERVAL, False


class _Deltas:
    """A thunk's deltas as the events of a stream without requirements."""

    def __init__(self, thunk: ModelOutputThunk) -> None:
        self._deltas = aiter(thunk)

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self

    async def __anext__(self) -> StreamEvent:
        return ChunkEvent(await anext(self._deltas), 0, 1)


@attrs.define
class _Verdict:
    label: str
    word: str = "unknown"
    reason: str | None = None


class _View:
    """What is known so far, for people."""

    def __init__(self, shown: StreamChunkingResult | ModelOutputThunk) -> None:
        self.ended = False
        self._shown = shown
        requirements = shown.requirements if isinstance(shown, StreamChunkingResult) else ()
        self._verdicts = [_Verdict(label_of(one)) for one in requirements]
        self._chunks: list[str] = []
        self._retracted = ""
        self._given_up: list[tuple[str, str]] = []
        self._thinks = False

    @property
    def text(self) -> str:
        """What was released and not taken back."""
        return "".join(self._chunks)

    def take(self, event: StreamEvent) -> None:
        """Take what an event tells."""
        match event:
            case ChunkEvent():
                self._chunks.append(event.before + event.text)
            case ReasoningEvent():
                self._thinks = True
            case RetractEvent():
                self._retracted = "".join(self._chunks[event.chunk_index :])
                del self._chunks[event.chunk_index :]
            case RetryEvent():
                self._given_up.append((event.reason, self._retracted))
                self._retracted = ""
                for verdict in self._verdicts:
                    verdict.word, verdict.reason = "unknown", None
            case QuickCheckEvent():
                for verdict, judged in zip(self._verdicts, event.results, strict=True):
                    verdict.word, verdict.reason = judged.success, judged.reason
            case FullValidationEvent():
                for verdict, final in zip(self._verdicts, event.results, strict=True):
                    verdict.word, verdict.reason = "pass" if final else "fail", final.reason
            case _:
                pass

    def bundle(self) -> Mapping[str, str]:
        """The output, in the forms that front ends choose from."""
        return {"text/plain": self.plain(), "text/html": self.html()}

    def html(self) -> str:
        """For notebooks; at the end, what the result is shown as."""
        if self.ended:
            return self._shown._repr_html_()
        text = self.text
        tail = text if len(text) <= SHOWN else f"…{text[-SHOWN:]}"
        given_up = [
            aside(f"given up: {html.escape(reason)} <s>{html.escape(text[-SHOWN:])}</s>")
            for reason, text in self._given_up
        ]
        verdicts = [(one.label, one.word, one.reason) for one in self._verdicts]
        return "".join([text_of_answer(tail, self._status()), *given_up, table_of(verdicts)])

    def plain(self) -> str:
        """The text, and how it stands in a few lines."""
        return harmless("\n".join([self.text, *self.lines()]))

    def lines(self) -> list[str]:
        """How it stands."""
        failed = [one for one in self._verdicts if one.word == "fail"]
        return [
            f"[{self._status()}]",
            *(f"✗ {one.label}" + (f": {one.reason}" if one.reason else "") for one in failed),
        ]

    def _status(self) -> str:
        if self.ended:
            error = self._shown.error
            why = "" if error is None else f": {type(error).__name__}: {error}"
            return f"{self._shown.state}{why}"
        doing = "thinking" if self._thinks and not self._chunks else "running"
        return f"{doing}, attempt {len(self._given_up) + 1}" if self._given_up else doing


class _Screen(Protocol):
    def show(self, view: _View) -> None:
        """Show how it stands."""
        ...


class _Output:
    """An output of a cell."""

    def __init__(self, display: _Display, view: _View) -> None:
        self._handle = display(view.bundle(), raw=True, display_id=True)

    def show(self, view: _View) -> None:
        """Change the output."""
        self._handle.update(view.bundle(), raw=True)


class _Printed:
    """Standard output: what it has got stays, and what is new comes after it."""

    def __init__(self) -> None:
        self._text = ""

    def show(self, view: _View) -> None:
        """Print what is new."""
        text = view.text
        if not text.startswith(self._text):
            print("\n[taken back; what counts is:]")
            self._text = ""
        print(harmless(text[len(self._text) :]), end="", flush=True)
        self._text = text
        if view.ended:
            print("", *map(harmless, view.lines()), sep="\n", flush=True)


class _Handle(Protocol):
    def update(self, obj: object, *, raw: bool) -> None: ...


class _Display(Protocol):
    def __call__(self, obj: object, *, raw: bool, display_id: bool) -> _Handle: ...


def _screen(view: _View) -> _Screen:
    display = _notebook_display()
    return _Printed() if display is None else _Output(display, view)


def _notebook_display() -> _Display | None:
    """IPython's ``display``, where who listens can change what was displayed."""
    if "IPython" not in sys.modules:
        return None
    shell: object = import_module("IPython").get_ipython()
    # IPython's publisher in terminals cannot update, but prints the output again
    prints = cast("type", import_module("IPython.core.displaypub").DisplayPublisher)
    if shell is None or type(getattr(shell, "display_pub", None)) in (prints, type(None)):
        return None
    return cast("_Display", import_module("IPython.display").display)
