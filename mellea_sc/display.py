"""Shows a checked stream or a thunk live, in one output of a notebook's cell that is updated while the cell runs.

::

    result.events() ──> view ──at most every INTERVAL──> one output of the cell, changed in place

Outside of a notebook (a script, IPython in a terminal), the text is printed as it is released.
"""

from __future__ import annotations

import html
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import import_module
from typing import Final, Protocol, cast

import anyio

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
    """Show a stream or a thunk while it is generated, and then a summary.

    ::

        async with m.stream("…", requirements=[…]) as result:
            await live(result)

    It is the only reader of ``result.events()``, or of the thunk's deltas (which need ``ModelOption.STREAM``).

    Args:
        shown: The stream's result, or the thunk.

    Raises:
        StreamConsumed: the events have another reader.
        anyio.BusyResourceError: another task is reading the thunk.
        WrongEventLoop: it runs in another event loop.
        Exception: the error that ended the stream or the thunk, after it was shown.

    Cancellation: the stream or the thunk is cancelled too, and has ended when this returns; also when the cell is
    interrupted.
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
    """Read the events; update the output at once, but at most every ``INTERVAL`` seconds."""
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


class _View:
    """The state of the stream, for people."""

    def __init__(self, shown: StreamChunkingResult | ModelOutputThunk) -> None:
        self.ended = False
        self._shown = shown
        requirements = shown.requirements if isinstance(shown, StreamChunkingResult) else ()
        self._labels = [label_of(requirement) for requirement in requirements]
        self._verdicts: Sequence[tuple[str, str, str | None]] = self._open()
        self._chunks: list[str] = []
        self._retracted = ""
        self._given_up: list[tuple[str, str]] = []
        self._thinks = False

    @property
    def text(self) -> str:
        """The released text, without what was retracted."""
        return "".join(self._chunks)

    def take(self, event: StreamEvent) -> None:
        """Update the state by an event."""
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
                self._verdicts = self._open()
            case QuickCheckEvent():
                self._verdicts = [
                    (label, verdict.success, verdict.reason)
                    for label, verdict in zip(self._labels, event.results, strict=True)
                ]
            case FullValidationEvent():
                self._verdicts = [
                    (label, "pass" if final else "fail", final.reason)
                    for label, final in zip(self._labels, event.results, strict=True)
                ]
            case _:
                pass

    def _open(self) -> Sequence[tuple[str, str, str | None]]:
        return [(label, "unknown", None) for label in self._labels]

    def bundle(self) -> Mapping[str, str]:
        """The output in several MIME types; a front end shows one of them."""
        return {"text/plain": self.plain(), "text/html": self.html()}

    def html(self) -> str:
        """The output for notebooks; at the end, the HTML form of the result itself."""
        if self.ended:
            return self._shown._repr_html_()
        text = self.text
        tail = text if len(text) <= SHOWN else f"…{text[-SHOWN:]}"
        given_up = [
            aside(f"given up: {html.escape(reason)} <s>{html.escape(text[-SHOWN:])}</s>")
            for reason, text in self._given_up
        ]
        answer = text_of_answer(tail, self._status())
        return "".join([answer, *given_up, table_of(self._verdicts)])

    def plain(self) -> str:
        """The output as plain text."""
        return harmless("\n".join([self.text, *self.lines()]))

    def lines(self) -> list[str]:
        """The status and the failed requirements, a line each."""
        return [
            f"[{self._status()}]",
            *(
                f"✗ {label}" + (f": {reason}" if reason else "")
                for label, verdict, reason in self._verdicts
                if verdict == "fail"
            ),
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
        """Show the current state."""
        ...


class _Output:
    """The output of a cell."""

    def __init__(self, display: _Display, view: _View) -> None:
        self._handle = display(view.bundle(), raw=True, display_id=True)

    def show(self, view: _View) -> None:
        """Update the output."""
        self._handle.update(view.bundle(), raw=True)


class _Printed:
    """Standard output, to which new text is appended."""

    def __init__(self) -> None:
        self._text = ""

    def show(self, view: _View) -> None:
        """Print the new text."""
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
    """IPython's ``display``, if the front end can update what was displayed."""
    if "IPython" not in sys.modules:
        return None
    shell: object = import_module("IPython").get_ipython()
    # In a terminal, IPython's publisher cannot update an output, but prints it again.
    prints = cast("type", import_module("IPython.core.displaypub").DisplayPublisher)
    if shell is None or type(getattr(shell, "display_pub", None)) in (prints, type(None)):
        return None
    return cast("_Display", import_module("IPython.display").display)
