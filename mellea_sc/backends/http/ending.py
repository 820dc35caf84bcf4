"""Decides from the deltas when an answer is complete. Without I/O.

A server sends the finish reason, then the usage, then the protocol's end mark. Some leave out the last, or the last
two, and keep the connection open. So an answer is complete at the end mark, and also some time after the finish
reason, whatever else comes or does not come.

Two kinds of servers send finish reasons that mean nothing: with every delta, or before the first one. So a finish
reason counts only after the first text, and only until more text comes. From then on only the end mark or the end
of the response completes the answer.
"""

from __future__ import annotations

from typing import Final

import attrs

from mellea_sc.core.backend import Delta

__all__ = ["LINGER", "Ending"]

GRACE: Final = 2.0
"""Seconds to wait for the usage and the end mark after a finish reason."""
DOUBTFUL_GRACE: Final = 5.0
"""The same for a finish reason that came together with text: it may be one that comes with every delta."""
LINGER: Final = 0.1
"""Seconds to wait for the response's end after the end mark, so that the connection can be reused."""


@attrs.define(eq=False)
class Ending:
    """Decides when an answer is complete.

    Attributes:
        has_begun: There was text, a call or a finish reason.
        is_whole: There was a finish reason, and neither text nor a call after it: the response may end here.
        is_amid: There was text or a call, and no finish reason: a delta without a finish reason changes nothing.
        grace: Seconds to read on, after which the answer counts as complete; ``None``: it is not complete yet.
    """

    has_begun: bool = False
    is_whole: bool = False
    is_amid: bool = False
    grace: float | None = None
    _has_text: bool = False
    _is_doubtful: bool = False

    def take(self, delta: Delta) -> None:
        """Process the next delta."""
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
            # The only meaningless reason that servers send before the first text is "stop".
            is_one = self._has_text or delta.finish_reason.lower() != "stop"
            if is_one and not self._is_doubtful:
                self.grace = DOUBTFUL_GRACE if delta.text else GRACE
        elif self.grace is not None and delta.usage is not None:
            self.grace = LINGER
        self.is_amid = self._has_text and not self.is_whole

    def end(self) -> None:
        """Process the protocol's end mark."""
        self.is_whole = True
        self.is_amid = False
        self.grace = LINGER
