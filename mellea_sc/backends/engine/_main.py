"""Run as a script, in a child process: loads a model and serves it until standard input ends.

The only argument is a directory that only our user can enter. It contains the file ``config``; this script writes the
file ``report`` into it: ``{"url": …}`` or ``{"error": …, "message": …}``.

Not imported by any module. It imports nothing of the library, so that it starts quickly.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

SLOTS = 4
"""Generations at the same time. More of them do not give more tokens per second on the same processors; they are
there so that a judge's short answer does not wait behind a long one."""
SLOT_CONTEXT = 4096
"""Tokens of prompt and answer, for each slot. Slots do not share a context: if they did, one request that grows too
long would end all the others with an error."""
BATCH = 32
"""Tokens of a prompt per batch. A cancelled request is noticed only between two batches."""
CONNECTIONS = 64
"""Requests that may be open, waiting ones included; the server has a thread for each."""


def main(directory: Path) -> None:
    """Serve what the directory's ``config`` says."""
    config = json.loads((directory / "config").read_text(encoding="utf-8"))
    try:
        xllamacpp: Any = importlib.import_module("xllamacpp")  # it has no type information
    except ImportError as error:
        report(directory, error="import", message=str(error))
        return
    try:
        server = xllamacpp.Server(parameters(xllamacpp.CommonParams(), config))
    except Exception as error:  # noqa: BLE001  # whatever it is, it must be reported to the parent
        report(directory, error="load", message=str(error))
        return
    handle_end_of_input_ourselves()
    report(directory, url=server.listening_address)
    while os.read(0, 1):
        pass
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)  # without waiting for the server's threads: nobody reads their answers any more


def parameters(p: Any, config: dict[str, str]) -> Any:
    """The engine's parameters."""
    p.model.path = config["model"]
    p.hostnames = [config["host"]]
    p.port = 0
    p.api_keys = [config["key"]]
    # With more busy threads than processors it becomes many times slower. So one processor is left for
    # everything else on the machine.
    threads = max(1, usable_cpus() - 1)
    p.cpuparams.n_threads = threads
    p.cpuparams_batch.n_threads = threads
    p.n_threads_http = CONNECTIONS
    p.n_parallel = SLOTS
    p.kv_unified = False
    p.n_ctx = SLOTS * SLOT_CONTEXT
    p.n_batch = p.n_ubatch = BATCH
    p.fit_params = False
    p.warmup = False
    # By default gigabytes of memory are used as a cache of earlier conversations.
    p.cache_ram_mib = 0
    p.ui = False
    p.offline = True
    p.verbosity = 1  # errors
    return p


def usable_cpus() -> int:
    """The number of processors that this process may use, by its affinity and its container's quota."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cpus, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such thing, or no limit ("max")
        return cpus


def handle_end_of_input_ourselves() -> None:
    """Turn off the signal of the lifeline: from now on, the end of the input ends this process in good order."""
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) & ~fcntl.FASYNC)


def report(directory: Path, **facts: str) -> None:
    """Write the report for the parent; atomically, so that it never sees a part of it."""
    draft = directory / "report.draft"
    draft.write_text(json.dumps(facts), encoding="utf-8")
    draft.replace(directory / "report")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
