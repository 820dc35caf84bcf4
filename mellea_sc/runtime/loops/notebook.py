"""Cells of notebooks: code that runs inside an event loop which stands still while it does.

An IPython kernel runs each cell as a step of its own event loop. Blocking that loop holds up nothing but the
kernel, which waits for the cell anyway; and Ctrl-C, the notebook's "interrupt", reaches a cell that blocks as
``KeyboardInterrupt``, and one that awaits as a cancellation of the cell's task.
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType

__all__ = ["hear_interrupts", "in_cell", "is_interrupt"]


def hear_interrupts() -> None:
    """Let a kernel's event loop hear of the interruption of a cell while the cell awaits.

    ipykernel 6 and 7 hand it to the loop by ``call_soon``, in a signal's handler, which does not wake a loop that waits.
    """
    if "ipykernel" in sys.modules and "asyncio" in sys.modules:
        from mellea_sc.runtime.loops import asyncio_loop

        if asyncio_loop.running_loop() is not None:
            asyncio_loop.wake_on_signals()


def in_cell() -> bool:
    """Whether the caller is the code of a cell: not a task beside it, whose waiting would hold up the cell."""
    if "ipykernel" not in sys.modules:
        return False
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        if (
            frame.f_code.co_name == "run_code"
            and frame.f_globals.get("__name__") == "IPython.core.interactiveshell"
        ):
            return True
        frame = frame.f_back
    return False


def is_interrupt(cancelled: BaseException) -> bool:
    """Whether a cancellation may be the interruption of the cell that it comes out of.

    Those of cancel scopes say that they are. Those of ``asyncio.timeout`` cannot be told from an interruption.
    """
    return "cancel scope" not in str(cancelled) and in_cell()
