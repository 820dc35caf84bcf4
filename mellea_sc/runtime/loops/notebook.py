"""Cells of notebooks: synchronous code that runs inside of a running event loop.

An IPython kernel runs each cell in a step of its own event loop. A blocking call there blocks only the kernel, which
waits for the cell anyway. The notebook's "interrupt" raises ``KeyboardInterrupt`` in a cell that blocks, and
cancels the cell's task natively if the cell awaits.
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType


def wake_loop_on_interrupts() -> None:
    """Have an interruption wake the kernel's event loop at once while a cell awaits.

    ipykernel 6 and 7 schedule the cancellation with ``call_soon`` in a signal handler. That does not wake a loop that
    is waiting for I/O, so the interruption would be noticed only at the next event.
    """
    if "ipykernel" in sys.modules and "asyncio" in sys.modules:
        from mellea_sc.runtime.loops import asyncio_loop

        if asyncio_loop.running_loop() is not None:
            asyncio_loop.wake_on_signals()


def in_cell() -> bool:
    """Whether the caller runs in a cell's own task, and not in another task of the kernel's loop."""
    # A blocking call in another task would block the loop, and with it the cell. The frames are the only sign.
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
    """Whether a cancellation may be the interruption of the running cell.

    A cancel scope's cancellation has "cancel scope" in its message. One by ``asyncio.timeout`` cannot be
    distinguished from an interruption.
    """
    return "cancel scope" not in str(cancelled) and in_cell()
