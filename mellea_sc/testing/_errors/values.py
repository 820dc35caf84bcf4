"""What a random program with errors consists of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import attrs

from mellea_sc.runtime.unobserved import OnError

__all__ = [
    "Answering",
    "Ending",
    "ErrorKind",
    "ErrorProgram",
    "Judging",
    "Step",
    "StepKind",
    "Strategy",
    "Work",
    "WorkKind",
]

ErrorKind: TypeAlias = Literal[
    "plain", "backend", "end of iteration", "stop iteration", "closing", "cancellation"
]
"""A ``ValueError``, a ``BackendError``, and what is no error to Python."""
WorkKind: TypeAlias = Literal["thunk", "stream", "stream of its own", "validation"]
Strategy: TypeAlias = Literal["none", "reject", "two series", "repair", "race", "best", "vote"]
StepKind: TypeAlias = Literal[
    "start", "wait", "wait briefly", "read", "read events", "enter", "cancel", "forget", "wait for all", "sleep",
    "cancel session",
]  # fmt: skip
Ending: TypeAlias = Literal["join", "error", "cancel"]


@attrs.frozen(kw_only=True)
class Answering:
    """One answer of the backend's.

    Args:
        deltas: Texts, and seconds between them.
        error: What it raises instead of going on.
        at: Before which of the deltas; -1: when it is opened.
        untidy: What it raises when it is cancelled.
    """

    deltas: Sequence[str | float]
    error: ErrorKind | None
    at: int
    untidy: ErrorKind | None


@attrs.frozen(kw_only=True)
class Judging:
    """What one requirement does.

    Args:
        delay: Seconds that a call takes.
        fails_at: Which call for running text fails it, from 0.
        passes: Whether the whole text passes.
        error: What it raises.
        at: In which call for running text, from 0; -1: when the whole text is judged.
        untidy: What it raises when it is cancelled.
        asks: Whether it asks the model before.
        fail_open: As a requirement's.
        blocking: As a requirement's.
    """

    delay: float | None
    fails_at: int | None
    passes: bool
    error: ErrorKind | None
    at: int
    untidy: ErrorKind | None
    asks: bool
    fail_open: bool
    blocking: bool


@attrs.frozen(kw_only=True)
class Work:
    """What is asked of the session."""

    kind: WorkKind
    judges: Sequence[Judging]
    preconditions: Sequence[Judging]
    strategy: Strategy
    streamed: bool
    needs: Sequence[int]
    """The works before it whose texts stand in its prompt, where they are thunks."""


@attrs.frozen
class Step:
    """One step of the program.

    Args:
        kind: What it does; a wait goes on in a task of its own.
        work: With which work.
        seconds: How long.
    """

    kind: StepKind
    work: int = 0
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class ErrorProgram:
    """A program in which errors are raised.

    Args:
        works: What may be started.
        steps: What is done.
        ending: How the session's block is left.
        answers: The backend's, in turn.
        connecting: What the first opening of connections raises.
        disconnecting: What closing them raises.
        on_error: The session's.
        bare: Whether the session has no block.
        chat: Whether it remembers.
        max_concurrency: The session's.
        seed: The order of tasks that are ready at the same moment.
    """

    works: Sequence[Work]
    steps: Sequence[Step]
    ending: Ending
    answers: Sequence[Answering]
    connecting: ErrorKind | None
    disconnecting: ErrorKind | None
    on_error: OnError
    bare: bool
    chat: bool
    max_concurrency: int | None
    seed: int
