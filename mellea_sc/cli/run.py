"""``mellea-sc run``: one answer. Imports the library."""

from __future__ import annotations

from mellea_sc.cli.asking import Asking
from mellea_sc.cli.interruption import Interruption
from mellea_sc.cli.settings import Settings
from mellea_sc.runtime.failures import sole_error

__all__ = ["run"]


async def run(prompt: str, trace: str | None, settings: Settings) -> int:
    """Stream an answer and show it; gives the exit status.

    SIGINT and SIGTERM cancel the stream; what was released is still shown, and the status is 128 and
    the signal's number. A second one ends the process at once.

    Args:
        prompt: What to ask.
        trace: A file, for the page that shows what ran when.
        settings: How to ask and what to check.

    Raises:
        MelleaError: a setting is not usable, or the run ended with an error.
    """
    asking = Asking(settings)
    interruption = Interruption(once=True)
    with sole_error():
        async with interruption.watched(), asking.session() as m:
            outcome = await asking.answer(m, prompt, interruption, trace)
    return outcome.status if interruption.signal is None else 128 + interruption.signal
