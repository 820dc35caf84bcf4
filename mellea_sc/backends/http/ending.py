"""When an answer is whole: decided from its deltas alone, without I/O.

A server says why the model has stopped, then how many tokens that took, then that this was all. Servers leave out
the last, or the last two, and keep the connection. So an answer is whole where the protocol says that it is the end,
and also a while after a reason to stop, whatever else comes, or does not.

Two kinds of servers give reasons that are none: with every delta, and before the first. So a reason counts once there
is text, and until more text comes; from then on only the protocol's end, or the response's, ends the answer.
"""

from __future__ import annotations

from typing import Final

from mellea_sc.core.backend import Delta

__all__ = ["LINGER", "Ending"]

GRACE: Final = 2.0
"""Seconds to wait for the usage, and for the end, after a reason to stop."""
DOUBTFUL_GRACE: Final = 5.0
"""The same, where the reason came with text, as with every delta it may."""
LINGER: Final = 0.1
"""Seconds to wait, after the end, for the response's end: its connection can then be used again."""


class Ending:
    """Tells when an answer is whole.

    Attributes:
        has_begun: There is something of an answer, or a reason to stop.
        is_whole: A reason to stop was given, and neither text nor a call after it: the response may end here as it should.
        is_amid: There is text or a call, and no reason to stop: a delta without such a reason changes nothing.
        grace: Seconds after which the answer ends, and until then it may end anyhow; ``None``: not yet.
    """

    __slots__ = ("_has_text", "_is_doubtful", "grace", "has_begun", "is_amid", "is_whole")

    def __init__(self) -> None:
        self.has_begun: bool = False
        self.is_whole: bool = False
        self.is_amid: bool = False
        self.grace: float | None = None
        self._has_text = False
        self._is_doubtful = False

    def take(self, delta: Delta) -> None:
        """Take note of the next delta."""
        if delta.text or delta.tool_calls:
            self.has_begun = self._has_text = True
            if self.is_whole:
                self._is_doubtful = True
                self.is_whole = False
                self.grace = None
        elif delta.reasoning:
            self.has_begun = True
        if delta.finish_reason is not None:
            self.has_begun = self.is_whole = True
            # Before the first delta, none has been seen but "stop".
            is_one = self._has_text or delta.finish_reason.lower() != "stop"
            if is_one and not self._is_doubtful:
                self.grace = DOUBTFUL_GRACE if delta.text else GRACE
        elif self.grace is not None and delta.usage is not None:
            self.grace = LINGER
        self.is_amid = self._has_text and not self.is_whole

    def end(self) -> None:
        """Take note that the protocol has said that this is the end."""
        self.is_whole = True
        self.is_amid = False
        self.grace = LINGER
