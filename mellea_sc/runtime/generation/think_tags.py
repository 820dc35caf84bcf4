"""Removes the reasoning that a model writes into its text: ``<think>…</think>``.

Only a tag at the beginning of an answer begins reasoning; the same tag later on is text, as in an answer about
HTML. The white space after each tag is removed with it. The result does not depend on where the deltas are cut:
text is held back as long as it may be the beginning of a tag.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import attrs

from mellea_sc.core.backend import Backend, BackendWrapper, Delta, GenerationRequest, think_tags


def without_think_tags(backend: Backend, request: GenerationRequest) -> Backend:
    """A backend that moves the reasoning out of the text, if the request's options say that the text has some."""
    tags = think_tags(request.options)
    if tags is None:
        return backend
    opening, closing = tags
    if not opening and backend.prefills and request.messages[-1].role == "assistant":
        return backend  # the model continues in the middle of an answer, and does not begin to reason again
    return _TagsRemoved(backend, opening, closing)


class _TagsRemoved(BackendWrapper):
    """A backend whose model writes its reasoning into its text."""

    def __init__(self, backend: Backend, opening: str, closing: str) -> None:
        super().__init__(backend)
        self._tags = opening, closing

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Open a generation; see :meth:`Backend.open`."""
        async with self.inner.open(request) as deltas:
            yield _SplitDeltas(deltas, TagSplitter(*self._tags))


@attrs.define(eq=False, repr=False)
class _SplitDeltas:
    """The deltas, with the reasoning in its own place."""

    _deltas: AsyncIterator[Delta]
    _splitter: TagSplitter
    _end: Exception | None = attrs.field(default=None, init=False)

    def __aiter__(self) -> _SplitDeltas:
        return self

    async def __anext__(self) -> Delta:
        if self._end is not None:
            raise self._end
        splitter = self._splitter
        try:
            delta = await self._deltas.__anext__()
        except Exception as end:
            # The end of the iteration, or an error. Text that was held back is given before it, and the end is
            # raised at the next step.
            reasoning, text = splitter.end()
            if not reasoning and not text:
                raise
            self._end = end
            return Delta(text, reasoning=reasoning)
        if splitter.is_done:
            return delta
        reasoning, text = splitter.feed(delta.text)
        if delta.finish_reason is not None:
            more_reasoning, more_text = splitter.end()
            reasoning, text = reasoning + more_reasoning, text + more_text
        return attrs.evolve(delta, text=text, reasoning=delta.reasoning + reasoning)


@attrs.define(eq=False, repr=False)
class TagSplitter:
    """Splits a text that begins with reasoning between tags; fed piece by piece.

    Args:
        opening: The tag before the reasoning; empty: the text begins inside of the reasoning.
        closing: The tag after the reasoning.
    """

    _opening: str
    _closing: str
    _held: str = attrs.field(default="", init=False)
    _where: Literal["before", "opened", "thinking", "behind", "done"] = attrs.field(
        default="before", init=False
    )

    @property
    def is_done(self) -> bool:
        """Whether everything from now on is text."""
        return self._where == "done"

    def feed(self, text: str) -> tuple[str, str]:
        """The reasoning and the text that are certain now."""
        reasoning = ""
        if self._where == "before":
            self._held += text
            begun = self._held.lstrip()
            if not begun.startswith(self._opening):
                if self._opening.startswith(begun):
                    return "", ""
                return "", self._text(self._take())
            text = begun[len(self._opening) :]
            self._held, self._where = "", "opened"
        if self._where == "opened" and (text := text.lstrip()):
            self._where = "thinking"
        if self._where == "thinking":
            reasoning, text = self._think(self._held + text)
        if self._where == "behind":
            text = text.lstrip()
        return reasoning, self._text(text) if text else ""

    def end(self) -> tuple[str, str]:
        """The reasoning and the text that were held back; the answer has ended."""
        held = self._take()
        return (held, "") if self._where == "thinking" else ("", held)

    def _think(self, text: str) -> tuple[str, str]:
        """The reasoning at the beginning of a text, and the text after it."""
        at = text.find(self._closing)
        if at >= 0:
            self._held, self._where = "", "behind"
            return text[:at], text[at + len(self._closing) :]
        # Only a suffix that is a prefix of the closing tag is held back: all before it is certainly reasoning.
        most = min(len(text), len(self._closing) - 1)
        kept = next(n for n in range(most, -1, -1) if text.endswith(self._closing[:n]))
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept], ""

    def _text(self, text: str) -> str:
        self._where = "done"
        return text

    def _take(self) -> str:
        held, self._held = self._held, ""
        return held
