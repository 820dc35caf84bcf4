"""Every error of the library, under one root.

The branch tells who is at fault::

    MelleaError
    ├── UsageError                      the caller
    │   ├── ThunkNotComputed              (RuntimeError) await it first
    │   ├── SessionClosed                 (RuntimeError) the session has ended
    │   ├── SyncCallInEventLoop           (RuntimeError) use the a-method
    │   ├── WrongEventLoop                (RuntimeError) it belongs to another loop
    │   ├── BackendNotBound               (RuntimeError) no session to generate in
    │   ├── StreamConsumed                (RuntimeError, anyio.BusyResourceError) a second iteration
    │   ├── InvalidOption                 (ValueError) an argument, option or setting
    │   ├── ChunkingError                 (ValueError) a chunk that is not in the text
    │   ├── PromptTemplateError           (ValueError) syntax, or an undefined name
    │   └── MissingExtra                  (ImportError) an optional package is needed
    ├── BackendError                    the model, its server, or the way to it
    │   ├── BackendUnreachable            (ConnectionError) refused, unknown host, no route
    │   ├── BackendTimeout                (TimeoutError) no delta within STREAM_TIMEOUT
    │   ├── BackendRejected               the server answered with an error status
    │   │   ├── ModelNotFound               it does not have that model
    │   │   ├── ContextTooLong              the prompt, or what it asks for, does not fit into the model
    │   │   ├── NotAuthorized               the key is missing or wrong (mostly 401 or 403)
    │   │   └── BackendBusy                 429, 503 or 529, perhaps with Retry-After
    │   ├── BackendProtocolError          the answer is not what the protocol says
    │   │   └── StreamInterrupted           the stream ended before its last delta
    │   ├── ModelError                    an error object inside the stream
    │   ├── EmptyAnswer                   no text: only reasoning, or cut off before the first word
    │   ├── UnexpectedToolCalls           calls instead of an answer, and nobody offered functions
    │   └── EngineError                   the embedded engine did not start, or died
    └── RunError                        the run
        ├── GenerationCancelled           cancelled: by its thunk, its session or a failure
        │   └── BudgetExceeded              by a limit that it ran over
        ├── DependencyFailed              a thunk that the prompt needs has failed
        ├── PreconditionFailed            the input does not meet a precondition
        ├── ValidatorTimeout              (TimeoutError) a validator did not return
        ├── PatternTooSlow                (TimeoutError) a regular expression found no end
        ├── InvalidVerdict                (TypeError) a validator returned something else
        └── UnclearJudgement              a judge's answer is neither yes nor no

The cancellation exceptions of asyncio and trio are not part of this tree, and never turned into one of these. No
error contains a secret: errors quote what a server has sent, never what was sent to the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import anyio

if TYPE_CHECKING:
    from mellea_sc.core.generation_info import ToolCall, Usage
    from mellea_sc.core.spending import LimitName, Spent

__all__ = [
    "BackendBusy",
    "BackendError",
    "BackendNotBound",
    "BackendProtocolError",
    "BackendRejected",
    "BackendTimeout",
    "BackendUnreachable",
    "BudgetExceeded",
    "ChunkingError",
    "ContextTooLong",
    "DependencyFailed",
    "EmptyAnswer",
    "EngineError",
    "GenerationCancelled",
    "InvalidOption",
    "InvalidVerdict",
    "MelleaError",
    "MissingExtra",
    "ModelError",
    "ModelNotFound",
    "NotAuthorized",
    "PatternTooSlow",
    "PreconditionFailed",
    "PromptTemplateError",
    "RunError",
    "SessionClosed",
    "StreamConsumed",
    "StreamInterrupted",
    "SyncCallInEventLoop",
    "ThunkNotComputed",
    "UnclearJudgement",
    "UnexpectedToolCalls",
    "UsageError",
    "ValidatorTimeout",
    "WrongEventLoop",
]


class MelleaError(Exception):
    """The root of every error that the library raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        """Errors can be copied and pickled, whatever arguments their ``__init__`` takes."""
        return _made_again, (type(self), self.args), vars(self)


def _made_again(kind: type[MelleaError], args: tuple[object, ...]) -> MelleaError:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


# --- the caller -----------------------------------------------------------------------------


class UsageError(MelleaError):
    """The call was wrong; the message says what to do instead."""


class ThunkNotComputed(UsageError, RuntimeError):
    """The text of a thunk was read before it was computed."""


class SessionClosed(UsageError, RuntimeError):
    """The session has ended: nothing can be started in it any more."""


class SyncCallInEventLoop(UsageError, RuntimeError):
    """A blocking method was called where it would block a running event loop."""


class WrongEventLoop(UsageError, RuntimeError):
    """A live object was used from another event loop than its own."""


class BackendNotBound(UsageError, RuntimeError):
    """A bare backend was asked to generate, but only one that is bound to a session can start tasks."""


class StreamConsumed(UsageError, RuntimeError, anyio.BusyResourceError):
    """A stream, which can be iterated once, was iterated a second time."""

    def __init__(self, what: str) -> None:
        # not through BusyResourceError, which has words of its own
        Exception.__init__(
            self, f"{what} has one reader, and was iterated before; keep what the first one read"
        )


class InvalidOption(UsageError, ValueError):
    """An argument, a model option or a setting has a value that cannot be used."""


class ChunkingError(UsageError, ValueError):
    """A chunking strategy returned a chunk that is not a part of the text that it was given."""


class PromptTemplateError(UsageError, ValueError):
    """A prompt's template is not valid, or uses a variable that was not given."""


class MissingExtra(UsageError, ImportError):
    """Something was asked for that needs an optional package."""


# --- the backend ----------------------------------------------------------------------------


class BackendError(MelleaError):
    """The model, its server or the way to it failed."""

    retryable: bool = False
    """Whether the same request may succeed a little later; set by the backend. Such a request is retried if it failed
    before its answer began, see :class:`Retries`."""
    retry_after: float | None = None
    """Seconds that the server asked to wait, if it did."""


class BackendUnreachable(BackendError, ConnectionError):
    """No connection: refused, an unknown host, no route, a TLS failure.

    Args:
        message: What happened and what to do.
        fault: What to check: the server and its address, the proxy before it, or the certificates.
    """

    def __init__(
        self, message: str, *, fault: Literal["server", "proxy", "certificate"] = "server"
    ) -> None:
        super().__init__(message)
        self.fault: Literal["server", "proxy", "certificate"] = fault
        self.retryable: bool = fault != "certificate"  # the server would present the same one again


class BackendTimeout(BackendError, TimeoutError):
    """The server did not deliver a delta within ``ModelOption.STREAM_TIMEOUT`` seconds."""


class BackendRejected(BackendError):
    """The server answered with an error status.

    Args:
        message: What happened and what to do.
        status: The HTTP status code.
        body: The beginning of the response's body, as text.
    """

    def __init__(self, message: str, *, status: int, body: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class ModelNotFound(BackendRejected):
    """The server does not have the model that was asked for."""


class ContextTooLong(BackendRejected):
    """The conversation together with the requested length of the answer exceeds the model's context."""


class NotAuthorized(BackendRejected):
    """The server, or a proxy before it, requires a key or rejects this one (mostly 401, 403 or 407)."""


class BackendBusy(BackendRejected):
    """The server is overloaded or limits the rate (429, 503, 529).

    Args:
        message: What happened and what to do.
        status: The HTTP status code.
        body: The beginning of the response's body, as text.
        retry_after: Seconds the server asked to wait for, if it did.
    """

    retryable = True

    def __init__(
        self, message: str, *, status: int, body: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, status=status, body=body)
        self.retry_after = retry_after


class BackendProtocolError(BackendError):
    """The server's answer is not what the protocol says: a malformed or oversized line, …"""


class StreamInterrupted(BackendProtocolError):
    """The stream ended in the middle: connection lost, or closed before the last delta."""


class ModelError(BackendError):
    """The server reported an error inside the stream, after it had begun."""


class EmptyAnswer(BackendError):
    """The answer has no text, because the tokens went into reasoning or the answer was cut off before its first word.

    Args:
        message: Where the tokens went, and what to do.
        finish_reason: Why the model stopped.
        reasoning: The model's reasoning.
        usage: The tokens used, if the server has reported them.
    """

    def __init__(
        self,
        message: str,
        *,
        finish_reason: str | None = None,
        reasoning: str = "",
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.finish_reason = finish_reason
        self.reasoning = reasoning
        self.usage = usage


class UnexpectedToolCalls(BackendError):
    """The model calls functions, and the request offered none.

    Args:
        message: Which functions.
        tool_calls: The calls.
        usage: The tokens used, if the server has reported them.
    """

    def __init__(
        self,
        message: str,
        *,
        tool_calls: Sequence[ToolCall] = (),
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.tool_calls: tuple[ToolCall, ...] = tuple(tool_calls)
        self.usage = usage


class EngineError(BackendError):
    """The embedded engine could not be started, or its process died."""


# --- the run --------------------------------------------------------------------------------


class RunError(MelleaError):
    """A generation or a validation was not completed."""


class GenerationCancelled(RunError):
    """The generation was cancelled before it was finished.

    Args:
        reason: Why, as given to ``cancel``.
        partial_text: The text that had been generated.
        usage: The tokens used so far, if the server had reported them.
    """

    def __init__(
        self, reason: str | None = None, *, partial_text: str = "", usage: Usage | None = None
    ) -> None:
        super().__init__(f"the generation was cancelled{f': {reason}' if reason else ''}")
        self.reason = reason
        self.partial_text = partial_text
        self.usage = usage


class BudgetExceeded(GenerationCancelled):
    """More was used than a limit allows; everything that ran under the limit was cancelled.

    Args:
        reason: Which limit, in words.
        limit: Which limit: ``"tokens"``, ``"requests"``, ``"seconds"`` or ``"cost"``.
        allowed: Its value.
        spent: What had been used by the block or the call that has the limit.
        partial_text: The text of the request that was cut off; if none was, of the one before it.
        usage: The tokens of that request, if the server had reported them.
        raised_elsewhere: Whether the block that has the limit, or the work around this generation, raises an
            error for the same excess. Then this one is not reported if nobody awaits the generation.
    """

    def __init__(
        self,
        reason: str,
        *,
        limit: LimitName,
        allowed: float,
        spent: Spent,
        partial_text: str = "",
        usage: Usage | None = None,
        raised_elsewhere: bool = False,
    ) -> None:
        super().__init__(reason, partial_text=partial_text, usage=usage)
        self.args: tuple[object, ...] = (f"{reason}: {spent}",)
        self.limit: LimitName = limit
        self.allowed: float = allowed
        self.spent: Spent = spent
        self.raised_elsewhere: bool = raised_elsewhere


class DependencyFailed(RunError):
    """A thunk that the prompt contains has failed; its error is the ``__cause__``."""


class PreconditionFailed(RunError):
    """The input does not meet a precondition. The generation was cancelled, and nothing of it was shown.

    Args:
        message: What happened.
        reasons: The reasons, one line for each precondition that is not met.
    """

    def __init__(self, message: str, *, reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reasons: list[str] = list(reasons)


class ValidatorTimeout(RunError, TimeoutError):
    """A validator did not return within its timeout."""


class PatternTooSlow(RunError, TimeoutError):
    """A regular expression of a requirement took too long on a text, so it is not known whether it matches."""


class InvalidVerdict(RunError, TypeError):
    """A validator returned something that is not a verdict."""


class UnclearJudgement(RunError):
    """A model that was asked to judge answered neither yes nor no, twice."""
