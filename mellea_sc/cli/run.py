"""``mellea-sc run``: one answer. Imports the library."""

from __future__ import annotations

from mellea_sc.cli.asking import Asking
from mellea_sc.cli.interruption import Interruption
from mellea_sc.cli.settings import Settings
from mellea_sc.runtime.failures import sole_error

__all__ = ["run"]


async def run(prompt: str, trace: str | None, settings: Settings) -> int:
    """Stream an answer and show it; returns the exit status.

    SIGINT and SIGTERM cancel the stream. The text released by then is still shown, and the status is 128 plus the
    number of the signal. A second signal ends the process at once.

    Args:
        prompt: The prompt.
        trace: A file for the HTML page with the trace.
        settings: The settings of the command line.

    Raises:
        MelleaError: a setting is not usable, or the run ended with an error.
    """
    asking = Asking(settings)
    interruption = Interruption(once=True)
    with sole_error():
        async with interruption.watched(), asking.session() as m:
            outcome = await asking.answer(m, prompt, interruption, trace)
    return outcome.status if interruption.signal is None else 128 + interruption.signal
