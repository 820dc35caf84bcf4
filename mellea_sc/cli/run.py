"""``mellea-sc run``: one session, one stream, and what Ctrl-C means. Imports the library."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import anyio
import anyio.abc
import attrs

from mellea_sc.backends._weights import SMOLLM2
from mellea_sc.backends.local import LocalBackend, Progress
from mellea_sc.backends.select import make_backend
from mellea_sc.cli.ending import INVALID, VALID
from mellea_sc.cli.headers import headers_from
from mellea_sc.cli.show import JsonShow, Show, TerminalShow
from mellea_sc.core.backend import Backend
from mellea_sc.core.base import CBlock
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.model_options import ModelOption, ModelOptions
from mellea_sc.core.requirement import Requirement, label_of
from mellea_sc.runtime.failures import sole_error
from mellea_sc.stdlib.components import Instruction
from mellea_sc.stdlib.requirements import MaxSentences, MaxWords, MustNotMatch
from mellea_sc.stdlib.sampling import (
    BacktrackStrategy,
    PlannedStrategy,
    RacingStrategy,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
)
from mellea_sc.stdlib.session import start_session

__all__ = ["RunSettings", "run"]


@attrs.frozen(kw_only=True)
class RunSettings:
    """What the command line says; ``None`` is what it does not say."""

    prompt: str
    max_sentences: int | None
    max_words: int | None
    must_not: tuple[str, ...]
    require: tuple[str, ...]
    chunking: Literal["sentence", "sentences", "word", "paragraph"] | None
    strategy: Literal["none", "reject", "repair", "backtrack", "race"]
    attempts: int | None
    backend: str | None
    model: str | None
    base_url: str | None
    headers_from: str | None
    system: str | None
    max_tokens: int | None
    temperature: float | None
    seed: int | None
    timeout: float | None
    retries: int | None
    as_json: bool
    explain: bool
    trace: str | None


async def run(settings: RunSettings) -> int:
    """Stream an answer and show it; gives the exit status.

    SIGINT and SIGTERM cancel the stream; what was released is still shown, and the status is 128 and
    the signal's number. A second one ends the process at once.

    Raises:
        MelleaError: a setting is not usable, or the run ended with an error.
    """
    requirements = _requirements(settings)
    labels = [label_of(requirement) for requirement in requirements]
    show: Show
    if settings.as_json:
        show = JsonShow(labels, explain=settings.explain)
    else:
        show = TerminalShow(labels, explain=settings.explain)
    strategy = _strategy(settings)
    backend = _backend(settings, show.progress)
    if settings.require and not backend.judges:
        raise InvalidOption(
            f"--require needs a model that can judge, and {backend.model_id} cannot: it says yes to everything. "
            "Name another with --backend ollama, --backend openai or --model FILE.gguf, or use --max-words, "
            "--max-sentences and --must-not, which need none"
        )
    interruption = _Interruption()
    valid = False
    with sole_error():
        async with anyio.create_task_group() as tasks:
            interruption.stop = tasks.cancel_scope.cancel
            if sys.platform != "win32":  # where Ctrl-C is a KeyboardInterrupt
                await tasks.start(interruption.watch)
            with show:
                async with start_session(backend=backend, retries=settings.retries) as m:
                    tasks.start_soon(show.draw)
                    async with m.stream(
                        Instruction(CBlock(settings.prompt), requirements),
                        requirements=requirements,
                        chunking=settings.chunking,
                        model_options=_model_options(settings, backend),
                        strategy=strategy,
                        hold_back=strategy is not None and strategy.asks_anew and show.is_final,
                    ) as result:
                        # The events go on to the last one, which a cancelled reader would miss.
                        interruption.stop = result.cancel
                        try:
                            async for event in result.events():
                                show.event(event, result)
                        finally:
                            if settings.trace is not None:
                                _write(settings.trace, result.trace.to_html())
                        await result.acomplete()
                        valid = result.completed and all(result.final_validations)
            tasks.cancel_scope.cancel()
    if interruption.signal is not None:
        return 128 + interruption.signal
    return VALID if valid else INVALID


def _write(file: str, page: str) -> None:
    try:
        Path(file).write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidOption(f"the trace cannot be written to {file}: {error.strerror}") from error


class _Interruption:
    """Waits for a signal that asks the process to end, and then calls ``stop`` with the reason."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.stop: Callable[[str], None] = _nothing

    async def watch(  # noqa: ASYNC114 - started with start()
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            self.signal = await anext(aiter(signals))
        # From here on the signals have their usual effect again.
        self.stop(f"by {signal.Signals(self.signal).name}")


def _nothing(_: str) -> None:
    pass


def _requirements(settings: RunSettings) -> list[Requirement]:
    requirements: list[Requirement] = []
    if settings.max_sentences is not None:
        requirements.append(MaxSentences(settings.max_sentences))
    if settings.max_words is not None:
        requirements.append(MaxWords(settings.max_words))
    requirements += [MustNotMatch(pattern) for pattern in settings.must_not]
    requirements += [Requirement(text) for text in settings.require]
    return requirements


def _strategy(settings: RunSettings) -> PlannedStrategy | None:
    attempts = settings.attempts
    match settings.strategy:
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


def _backend(settings: RunSettings, progress: Callable[[Progress], None]) -> Backend:
    backend = make_backend(
        settings.backend,
        settings.model,
        base_url=settings.base_url,
        headers=headers_from(settings.headers_from),
    )
    if isinstance(backend, LocalBackend):
        model = settings.model or os.environ.get("MELLEA_SC_MODEL") or None
        return LocalBackend(model, progress=progress)
    return backend


_OPTIONS: Final = {
    "system": ModelOption.SYSTEM_PROMPT,
    "max_tokens": ModelOption.MAX_NEW_TOKENS,
    "temperature": ModelOption.TEMPERATURE,
    "seed": ModelOption.SEED,
    "timeout": ModelOption.STREAM_TIMEOUT,
}


def _model_options(settings: RunSettings, backend: Backend) -> ModelOptions:
    given = {option: getattr(settings, name) for name, option in _OPTIONS.items()}
    options = {option: value for option, value in given.items() if value is not None}
    if settings.strategy == "none" and backend.model_id == SMOLLM2.name:
        # its likeliest answer is its best one; further attempts would all be the same
        options.setdefault(ModelOption.TEMPERATURE, 0.0)
    return options
