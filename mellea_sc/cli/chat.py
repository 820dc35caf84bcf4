"""``mellea-sc chat``: a conversation. Imports the library."""

from __future__ import annotations

import signal
from typing import Final

import anyio.lowlevel

from mellea_sc.cli.asking import Asking
from mellea_sc.cli.ending import VALID, tell
from mellea_sc.cli.interruption import Interruption, nothing
from mellea_sc.cli.lines import say
from mellea_sc.cli.prompt import Interrupted, Prompt
from mellea_sc.cli.settings import Settings
from mellea_sc.core.errors import BackendError, RunError
from mellea_sc.core.plain_text import harmless
from mellea_sc.runtime.failures import sole_error
from mellea_sc.stdlib.session import MelleaSession

__all__ = ["chat"]

QUIT: Final = "/quit"
HOW_TO_END: Final = f"Ctrl-C again, Ctrl-D or {QUIT} ends the conversation"


async def chat(settings: Settings) -> int:
    """Answer the lines of standard input, one after the other; returns the exit status.

    SIGINT stops the running answer, and the conversation goes on without that turn; between answers it drops the line
    that is being written. A second SIGINT before the next line ends the conversation, like ``/quit`` and the end of
    the input. SIGTERM ends it at any time.

    On a terminal, an error is printed and the conversation goes on. If the lines come from a file or a pipe, an error
    ends the command, and a failed check or an answer that was cut off determines the exit status.

    Args:
        settings: The settings of the command line.

    Raises:
        MelleaError: a setting is not usable; or an answer ended with an error, and the input is no terminal.
    """
    asking = Asking(settings, in_chat=True)
    prompt = Prompt()
    interruption = Interruption(once=False)
    if prompt.is_terminal:
        name = harmless(f"{asking.backend.model_id} ({asking.backend.provider})")
        say(f"{name}. Ctrl-C stops an answer, Ctrl-D or {QUIT} ends the conversation.", "dim")
    with sole_error():
        async with interruption.watched(), asking.session() as m:
            return await _converse(m, asking, prompt, interruption)


async def _converse(
    m: MelleaSession, asking: Asking, prompt: Prompt, interruption: Interruption
) -> int:
    statuses = {VALID}
    was_interrupted = False
    while True:
        await _forget_late(interruption)
        if interruption.signal is not None:
            return 128 + interruption.signal
        try:
            line = prompt.read()
        except Interrupted as interrupted:
            if interrupted.number != signal.SIGINT or was_interrupted:
                return 128 + interrupted.number
            was_interrupted = True
            say(f"\n{HOW_TO_END}", "dim")
            continue
        if line is None or line.strip() == QUIT:
            return VALID if prompt.is_terminal else min(statuses - {VALID}, default=VALID)
        if not line.strip():
            continue
        await _forget_late(interruption)
        try:
            outcome = await asking.answer(m, line.rstrip("\r\n"), interruption)
        except (BackendError, RunError) as error:
            if not prompt.is_terminal:
                raise
            tell(error)
        else:
            if interruption.signal is None:
                statuses.add(outcome.status)
        finally:
            interruption.stop = nothing
        was_interrupted = interruption.signal is not None


async def _forget_late(interruption: Interruption) -> None:
    """Ignore a Ctrl-C that came just after the end of an answer; SIGTERM is never ignored."""
    # the maximum number of loop steps from a signal to the task that waits for it
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    if interruption.signal == signal.SIGINT:
        interruption.signal = None
