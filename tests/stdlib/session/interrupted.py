"""Programs that signals hit at random moments, each in a child process of this one.

    python interrupted.py MOMENTS SEED

Forks, once per moment, a child that runs one of the programs to its end, and sends it SIGINT or SIGTERM once or
twice while it runs. Prints a line for every child that hangs or crashes, and at last how many there were.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from typing import Any, NoReturn

import anyio
import anyio.lowlevel
import trio  # noqa: F401 - imported before the forks, for each of them

from mellea_sc import (
    MelleaError,
    ModelOption,
    Requirement,
    ValidationResult,
    req,
    simple_validate,
    start_session,
)
from mellea_sc.testing import ScriptedBackend, Stall

HANGS_AFTER = 40.0
"""Seconds; twice what two interrupted cleanups may take."""
NEVER = {ModelOption.STREAM_TIMEOUT: None}


def quick(**options: Any) -> Any:
    return start_session(backend=ScriptedBackend(lambda _: ["a ", "b."]), **options)


def stalled() -> Any:
    return start_session(backend=ScriptedBackend(lambda _: ["a ", Stall()]), model_options=NEVER)


def computes(seconds: float) -> Requirement:
    return Requirement("x", simple_validate(lambda _: time.sleep(seconds) or True))


def calls() -> None:
    m = quick(context_type="chat")
    for _ in range(60):
        m.instruct("q", requirements=[computes(0)])
    m.close()


def blocks() -> None:
    for _ in range(60):
        with quick() as m:
            m.instruct("q")


def forgotten() -> None:
    for _ in range(60):
        quick().instruct("q")


def a_stalled_model() -> None:
    with stalled() as m:
        m.instruct("q")


def a_stalled_model_of_a_bare_session() -> None:
    m = stalled()
    try:
        m.instruct("q")
    finally:
        m.close()


def a_validator_that_computes() -> None:
    m = quick()
    for _ in range(10):
        m.instruct("q", requirements=[computes(0.1)])


def a_program_that_goes_on() -> None:
    m = quick(context_type="chat")
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        try:
            m.instruct("q")
        except KeyboardInterrupt:
            assert m.instruct("q").value == "a b."
    m.close()


def threads() -> None:
    m, stuck = quick(), stalled()

    def call(m: Any) -> None:
        try:
            for _ in range(200):
                m.instruct("q")
        except MelleaError:
            return

    for session in (m, m, stuck):
        threading.Thread(target=call, args=[session], daemon=True).start()
    for _ in range(40):
        m.instruct("q")


def a_server_that_never_answers() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    with start_session("openai", "x", base_url=url, api_key="k", model_options=NEVER) as m:
        m.instruct("q")


async def checked(_: object) -> ValidationResult:
    await anyio.lowlevel.checkpoint()
    return ValidationResult(True)


async def block() -> None:
    for _ in range(10):
        async with quick(context_type="chat") as m:
            thunk = await m.ainstruct("q", requirements=[Requirement("x", checked)])
            async with m.stream("q", requirements=[req("x", validation_fn=checked)]) as result:
                async for _ in result.astream():
                    pass
            await thunk
            await anyio.to_thread.run_sync(m.instruct, "q")


async def bare() -> None:
    m = stalled()
    await m.ainstruct("q")
    async with m.stream("q") as result:
        await result.acomplete()


def in_asyncio() -> None:
    anyio.run(block)


def in_trio() -> None:
    anyio.run(block, backend="trio")


def bare_in_asyncio() -> None:
    anyio.run(bare)


def bare_in_trio() -> None:
    anyio.run(bare, backend="trio")


PROGRAMS = [
    calls,
    blocks,
    forgotten,
    a_stalled_model,
    a_stalled_model_of_a_bare_session,
    a_validator_that_computes,
    a_program_that_goes_on,
    threads,
    a_server_that_never_answers,
    in_asyncio,
    in_trio,
    bare_in_asyncio,
    bare_in_trio,
]


def leave(*_: object) -> NoReturn:
    raise SystemExit(3)


def follow(pid: int, moments: list[tuple[float, signal.Signals]]) -> tuple[str, float]:
    """Send the child its signals, and wait for it: how it ended, and how long that took from the last one."""
    ended = 0
    for moment, number in moments:
        time.sleep(moment)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        os.kill(pid, number)
    began = time.monotonic()
    while not ended:
        if time.monotonic() > began + HANGS_AFTER:
            os.kill(pid, signal.SIGUSR1)
            time.sleep(1)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "hangs", HANGS_AFTER
        time.sleep(0.005)
        ended, status = os.waitpid(pid, os.WNOHANG)
    code = os.waitstatus_to_exitcode(status)
    crashed = code < 0 and -code not in (signal.SIGINT, signal.SIGTERM)
    return f"{'crashes: ' if crashed else ''}{code}", time.monotonic() - began


def main() -> None:
    moments, seed = map(int, sys.argv[1:3])
    chance = random.Random(seed)
    tally: Counter[str] = Counter()
    bad, slowest = 0, 0.0
    for number in range(moments):
        program = PROGRAMS[number % len(PROGRAMS)]
        signals = [chance.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM])]
        if chance.random() < 0.5:
            signals *= 2
        at = [chance.uniform(0, 0.4), chance.choice([0, chance.uniform(0, 0.3)])]
        said = tempfile.TemporaryFile()  # noqa: SIM115
        ready, begin = os.pipe()
        pid = os.fork()
        if not pid:
            os.dup2(said.fileno(), 2)
            faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, leave)
            os.write(begin, b"!")
            program()
            return  # to the interpreter's end
        os.read(ready, 1)
        os.close(ready)
        os.close(begin)
        how, took = follow(pid, list(zip(at, signals, strict=False)))
        tally[how] += 1
        slowest = max(slowest, took)
        if not how.lstrip("-").isdigit() or took > 3 or (how == "1" and len(sys.argv) > 3):
            bad += not how.lstrip("-").isdigit()
            said.seek(0)
            text = said.read().decode(errors="replace")
            print(
                f"{number} {program.__name__} {how} {took:.2f} {signals} {at}\n{text}", flush=True
            )
        elif how == "1":
            said.seek(0)
            print(
                f"{number} {program.__name__}: {said.read().decode().splitlines()[-1:]}", flush=True
            )
        said.close()
    print(dict(tally), f"slowest {slowest:.1f} s, {bad} bad")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
