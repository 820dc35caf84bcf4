"""A real Jupyter kernel, whose cells are run as a notebook runs them."""

from __future__ import annotations

import queue
import re
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, Any

import jupyter_client
import pytest

PATIENCE = 60.0
"""Seconds, for hangs only."""
AGAIN = 10.0
"""Seconds without a word, after which a cell that blocks is interrupted once more: a kernel that is printing loses one."""

BEGIN = """
import anyio
from mellea_sc import *
from mellea_sc.testing import Script, ScriptedBackend, Stall
def answer(request):
    if "wait" not in request.messages[-1].content:
        return "Hello <there>."
    print("go", flush=True)
    return [Stall()]
backend = ScriptedBackend(answer)
def outcomes(): return [call.outcome for call in backend.calls]
m = start_session(backend=backend)
"""


class Kernel:
    """A running kernel; cells are run as a notebook runs them."""

    def __init__(self, manager: Any, client: Any) -> None:
        self._manager = manager
        self._client = client

    def run(self, code: str, *, interrupt_at: str | None = None) -> dict[str, str]:
        """Run a cell; gives what it prints, its result as text and as HTML, and the name of its error."""
        request = self._client.execute(code)
        self.displays: list[dict[str, str]] = []
        self.interrupts = 0
        told: dict[str, str] = {"stream": ""}
        is_interrupted = False
        last_change = time.monotonic()
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=AGAIN)
            except queue.Empty:
                if time.monotonic() - last_change > PATIENCE:
                    pytest.fail(f"the cell hangs: {code}")
                if is_interrupted:
                    self._interrupt()
                continue
            last_change = time.monotonic()
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    told["stream"] += content["text"]
                    if not is_interrupted and interrupt_at and interrupt_at in told["stream"]:
                        is_interrupted = True
                        self._interrupt()
                case "display_data" | "update_display_data":
                    self.displays.append(content["data"])
                    if not is_interrupted and interrupt_at and interrupt_at in str(content["data"]):
                        is_interrupted = True
                        self._interrupt()
                case "execute_result":
                    told |= content["data"]
                case "error":
                    told["error"] = content["ename"]
                    told["message"] = content["evalue"]
                    told["traceback"] = re.sub(
                        r"\x1b\[[0-9;]*m", "", "\n".join(content["traceback"])
                    )
                case "status" if content["execution_state"] == "idle":
                    return told

    def _interrupt(self) -> None:
        self.interrupts += 1
        self._manager.interrupt_kernel()


@contextmanager
def started(stderr: int | IO[str] = subprocess.DEVNULL) -> Generator[Kernel]:
    """A kernel, until the block is left."""
    manager = jupyter_client.KernelManager(kernel_name="python3")
    manager.start_kernel(stderr=stderr)
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
