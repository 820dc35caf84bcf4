"""An answer: backend, requirements and strategy as the settings say, and its stream, shown. And ``mellea-sc run``.

Ctrl-C and SIGTERM stop an answer that is generated. Imports the library.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal, TypeAlias

import anyio
import anyio.abc

from mellea_sc.backends._weights import SMOLLM2
from mellea_sc.backends.local import LocalBackend, Progress
from mellea_sc.backends.select import make_backend
from mellea_sc.cli.commands import Settings, headers_from
from mellea_sc.cli.ending import STOPPED, Outcome, outcome_of
from mellea_sc.cli.show import JsonShow, Show, TerminalShow
from mellea_sc.core.backend import Backend, ModelOption, ModelOptions
from mellea_sc.core.base import CBlock
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import Requirement, label_of
from mellea_sc.runtime.failures import sole_error, task_group
from mellea_sc.stdlib.components import Instruction
from mellea_sc.stdlib.context import ChatContext
from mellea_sc.stdlib.requirements import MaxSentences, MaxWords, MustNotMatch
from mellea_sc.stdlib.sampling import (
    BacktrackStrategy,
    PlannedStrategy,
    RacingStrategy,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
)
from mellea_sc.stdlib.session import MelleaSession, start_session


class Asking:
    """Asks the model with the settings of the command line, once or several times.

    Args:
        settings: The settings.
        in_chat: Whether the answers belong to a conversation.

    Raises:
        InvalidOption: a setting is not usable.
    """

    def __init__(self, settings: Settings, *, in_chat: bool = False) -> None:
        self._settings = settings
        self._in_chat = in_chat
        self._requirements = _requirements(settings)
        self._strategy = _strategy(settings)
        self._show = self._new_show()
        self.backend: Backend = _backend(settings, lambda progress: self._show.progress(progress))
        if settings["require"] and not self.backend.judges:
            raise InvalidOption(
                f"--require needs a model that can judge, and {self.backend.model_id} cannot: it says yes to "
                "everything. Name another with --backend ollama, --backend openai or --model FILE.gguf, or use "
                "--max-words, --max-sentences and --must-not, which need none"
            )

    def session(self) -> MelleaSession:
        """A session for the questions."""
        ctx = ChatContext() if self._in_chat else None
        return start_session(backend=self.backend, ctx=ctx, retries=self._settings["retries"])

    async def answer(
        self, m: MelleaSession, prompt: str, interruption: Interruption, trace: str | None = None
    ) -> Outcome:
        """Ask, and show the answer while it is generated.

        Args:
            m: The session.
            prompt: The question; never a template.
            interruption: Gets the function that stops the answer. Text that was released by then is still shown.
            trace: The file for a page with the trace.

        Raises:
            MelleaError: the answer ended with an error.

        Cancellation: the answer is cancelled.
        """
        settings, show = self._settings, self._show
        outcome = STOPPED
        show.begin()
        try:
            async with task_group() as tasks:
                interruption.stop = tasks.cancel_scope.cancel
                tasks.start_soon(show.draw)
                async with m.stream(
                    Instruction(CBlock(prompt), self._requirements),
                    requirements=self._requirements,
                    chunking=None if settings["chunking"] == "none" else settings["chunking"],
                    model_options=_model_options(settings, self.backend),
                    strategy=self._strategy,
                    hold_back=self._strategy is not None
                    and self._strategy.asks_anew
                    and show.is_final,
                ) as result:
                    # Only the run is cancelled, not this reader: it must still get the last events.
                    interruption.stop = result.cancel
                    try:
                        async for event in result.events():
                            show.event(event, result)
                    finally:
                        if trace is not None:
                            _write(trace, result.trace.to_html())
                    await result.acomplete()
                    outcome = outcome_of(result, settings["max_tokens"])
                tasks.cancel_scope.cancel()
        finally:
            show.end()
            self._show = self._new_show()
        return outcome

    def _new_show(self) -> Show:
        labels = [label_of(requirement) for requirement in self._requirements]
        if self._settings["as_json"]:
            return JsonShow(labels, self._settings)
        return TerminalShow(labels, self._settings, brief=self._in_chat)


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


def _write(file: str, page: str) -> None:
    try:
        Path(file).write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidOption(f"the trace cannot be written to {file}: {error.strerror}") from error


def _requirements(settings: Settings) -> list[Requirement]:
    requirements: list[Requirement] = []
    if settings["max_sentences"] is not None:
        requirements.append(MaxSentences(settings["max_sentences"]))
    if settings["max_words"] is not None:
        requirements.append(MaxWords(settings["max_words"]))
    requirements += [MustNotMatch(pattern) for pattern in settings["must_not"]]
    requirements += [Requirement(text) for text in settings["require"]]
    return requirements


def _strategy(settings: Settings) -> PlannedStrategy | None:
    attempts = settings["attempts"]
    match settings["strategy"]:
        case "reject":
            return RejectionSamplingStrategy(loop_budget=attempts or 3)
        case "repair":
            return RepairTemplateStrategy(loop_budget=attempts or 3)
        case "backtrack":
            return BacktrackStrategy(budget=attempts or 8)
        case "race":
            return RacingStrategy(min(3, attempts or 3), budget=attempts)
        case "none":
            if attempts is not None:
                raise InvalidOption("--attempts goes with a --strategy")
            return None


def _backend(settings: Settings, progress: Callable[[Progress], None]) -> Backend:
    backend = make_backend(
        settings["backend"],
        settings["model"],
        base_url=settings["base_url"],
        headers=headers_from(settings["headers_from"]),
    )
    if isinstance(backend, LocalBackend):
        model = settings["model"] or os.environ.get("MELLEA_SC_MODEL") or None
        return LocalBackend(model, progress=progress)
    return backend


_OptionName: TypeAlias = Literal["system", "max_tokens", "temperature", "seed", "timeout"]
_OPTIONS: Final[Mapping[_OptionName, str]] = {
    "system": ModelOption.SYSTEM_PROMPT,
    "max_tokens": ModelOption.MAX_NEW_TOKENS,
    "temperature": ModelOption.TEMPERATURE,
    "seed": ModelOption.SEED,
    "timeout": ModelOption.STREAM_TIMEOUT,
}


def _model_options(settings: Settings, backend: Backend) -> ModelOptions:
    given = {option: settings[name] for name, option in _OPTIONS.items()}
    options = {option: value for option, value in given.items() if value is not None}
    if settings["strategy"] == "none" and backend.model_id == SMOLLM2.name:
        # Greedy decoding gives this small model's best answer; but with it, further attempts would all be the same.
        options.setdefault(ModelOption.TEMPERATURE, 0.0)
    return options


class Interruption:
    """Waits for the signals that ask a process to end, and calls :attr:`stop` with the reason.

    Args:
        once: After the first signal they have their usual effect again: a second one ends the process.
    """

    def __init__(self, *, once: bool) -> None:
        self._once = once
        self.signal: int | None = None
        """The last signal."""
        self.stop: Callable[[str], None] = nothing
        """The function that stops the running answer; called with the reason."""

    @asynccontextmanager
    async def watched(self) -> AsyncGenerator[None]:
        """A block in which the signals are handled; on Windows Ctrl-C stays a KeyboardInterrupt.

        Cancellation: the signals have their usual effect again.
        """
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":
                await tasks.start(self._watch)
            yield
            tasks.cancel_scope.cancel()

    async def _watch(  # noqa: ASYNC114 - started with start()
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                self.signal = number
                if self._once:
                    break
                self._stop()
        if self.signal is not None:
            self._stop()

    def _stop(self) -> None:
        assert self.signal is not None
        self.stop(f"by {signal.Signals(self.signal).name}")


def nothing(_: str) -> None:
    """There is nothing to stop."""
