"""Generative programming with language models on structured concurrency.

core/       values and contracts: what goes to a model, requirements, backends, errors
runtime/    the kernel: nurseries, thunks, lanes, the ledger
backends/   how to talk to a model: OpenAI's protocol, Ollama's, an embedded engine
stdlib/     what users compose: sessions, streams, components, requirements, strategies
helpers/    waiting for several thunks
testing/    what users test their own programs with
cli/        the command mellea-sc

Every public name can be imported from here; its module is imported when the name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mellea_sc.backends.local import LocalBackend
    from mellea_sc.backends.ollama import OllamaBackend
    from mellea_sc.backends.openai import OpenAIBackend
    from mellea_sc.core.backend import Backend, ChatMessage, Delta, GenerationRequest, Usage
    from mellea_sc.core.base import CBlock, Component, Context
    from mellea_sc.core.chunking import ChunkingStrategy
    from mellea_sc.core.errors import (
        BackendBusy,
        BackendError,
        BackendNotBound,
        BackendProtocolError,
        BackendRejected,
        BackendTimeout,
        BackendUnreachable,
        BudgetExceeded,
        ChunkingError,
        DependencyFailed,
        EngineError,
        GenerationCancelled,
        InvalidOption,
        InvalidVerdict,
        MelleaError,
        MissingExtra,
        ModelError,
        ModelNotFound,
        NotAuthorized,
        PreconditionFailed,
        PromptTemplateError,
        RunError,
        SessionClosed,
        StreamConsumed,
        StreamInterrupted,
        SyncCallInEventLoop,
        ThunkNotComputed,
        UnclearJudgement,
        UsageError,
        ValidatorTimeout,
        WrongEventLoop,
    )
    from mellea_sc.core.model_options import ModelOption
    from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult
    from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
    from mellea_sc.core.spending import Limits, Prices, Spent
    from mellea_sc.core.trace import Cause, TokenCount, Trace
    from mellea_sc.helpers.async_helpers import wait_for_all_mots
    from mellea_sc.runtime.generation import BoundBackend
    from mellea_sc.runtime.limits import LimitedBlock, limits
    from mellea_sc.runtime.thunk import GenerationInfo, ModelOutputThunk
    from mellea_sc.stdlib.chunking import (
        ParagraphChunker,
        RawChunker,
        SentenceChunker,
        WordChunker,
        resolve_chunking,
    )
    from mellea_sc.stdlib.components import (
        Instruction,
        Message,
        MObject,
        MObjectProtocol,
        Query,
        SimpleComponent,
        Transform,
    )
    from mellea_sc.stdlib.context import ChatContext, SimpleContext
    from mellea_sc.stdlib.events import (
        ChunkEvent,
        CompletedEvent,
        ErrorEvent,
        FilteredEvent,
        FullValidationEvent,
        InputCheckEvent,
        QuickCheckEvent,
        RetractEvent,
        RetryEvent,
        StreamEvent,
        StreamingDoneEvent,
    )
    from mellea_sc.stdlib.requirements import (
        CodeBlocks,
        LLMJudge,
        MaxCharacters,
        MaxSentences,
        MaxWords,
        MustMatch,
        MustNotMatch,
        NoPII,
        NoRepetition,
        NoSecrets,
        ValidJSON,
        check,
        req,
        simple_validate,
    )
    from mellea_sc.stdlib.sampling import (
        Ask,
        AttemptResult,
        BacktrackStrategy,
        BaseSamplingStrategy,
        BestOfNStrategy,
        Choice,
        MajorityVotingStrategy,
        MultiTurnStrategy,
        PlannedStrategy,
        RacingStrategy,
        RejectionSamplingStrategy,
        RepairTemplateStrategy,
    )
    from mellea_sc.stdlib.session import MelleaSession, start_session
    from mellea_sc.stdlib.stream_result import StreamChunkingResult
    from mellea_sc.stdlib.streaming import StreamRequest, stream_with_chunking

__all__ = [
    "Ask",
    "AttemptResult",
    "Backend",
    "BackendBusy",
    "BackendError",
    "BackendNotBound",
    "BackendProtocolError",
    "BackendRejected",
    "BackendTimeout",
    "BackendUnreachable",
    "BacktrackStrategy",
    "BaseSamplingStrategy",
    "BestOfNStrategy",
    "BoundBackend",
    "BudgetExceeded",
    "CBlock",
    "Cause",
    "ChatContext",
    "ChatMessage",
    "Choice",
    "ChunkEvent",
    "ChunkingError",
    "ChunkingStrategy",
    "CodeBlocks",
    "CompletedEvent",
    "Component",
    "Context",
    "Delta",
    "DependencyFailed",
    "EngineError",
    "ErrorEvent",
    "FilteredEvent",
    "FullValidationEvent",
    "GenerationCancelled",
    "GenerationInfo",
    "GenerationRequest",
    "InputCheckEvent",
    "Instruction",
    "InvalidOption",
    "InvalidVerdict",
    "LLMJudge",
    "LimitedBlock",
    "Limits",
    "LocalBackend",
    "MObject",
    "MObjectProtocol",
    "MajorityVotingStrategy",
    "MaxCharacters",
    "MaxSentences",
    "MaxWords",
    "MelleaError",
    "MelleaSession",
    "Message",
    "MissingExtra",
    "ModelError",
    "ModelNotFound",
    "ModelOption",
    "ModelOutputThunk",
    "MultiTurnStrategy",
    "MustMatch",
    "MustNotMatch",
    "NoPII",
    "NoRepetition",
    "NoSecrets",
    "NotAuthorized",
    "OllamaBackend",
    "OpenAIBackend",
    "ParagraphChunker",
    "PartialValidationResult",
    "PlannedStrategy",
    "PreconditionFailed",
    "Prices",
    "PromptTemplateError",
    "Query",
    "QuickCheckEvent",
    "RacingStrategy",
    "RawChunker",
    "RejectionSamplingStrategy",
    "RepairTemplateStrategy",
    "Requirement",
    "RetractEvent",
    "RetryEvent",
    "RunError",
    "SamplingResult",
    "SamplingStrategy",
    "SentenceChunker",
    "SessionClosed",
    "SimpleComponent",
    "SimpleContext",
    "Spent",
    "StreamChunkingResult",
    "StreamConsumed",
    "StreamEvent",
    "StreamInterrupted",
    "StreamRequest",
    "StreamingDoneEvent",
    "SyncCallInEventLoop",
    "ThunkNotComputed",
    "TokenCount",
    "Trace",
    "Transform",
    "UnclearJudgement",
    "Usage",
    "UsageError",
    "ValidJSON",
    "ValidationResult",
    "ValidatorTimeout",
    "WordChunker",
    "WrongEventLoop",
    "check",
    "limits",
    "req",
    "resolve_chunking",
    "simple_validate",
    "start_session",
    "stream_with_chunking",
    "wait_for_all_mots",
]

_ROOMS = {
    "mellea_sc.backends.local": ("LocalBackend",),
    "mellea_sc.backends.ollama": ("OllamaBackend",),
    "mellea_sc.backends.openai": ("OpenAIBackend",),
    "mellea_sc.core.backend": (
        "Backend",
        "ChatMessage",
        "Delta",
        "GenerationRequest",
        "Usage",
    ),
    "mellea_sc.core.base": (
        "CBlock",
        "Component",
        "Context",
    ),
    "mellea_sc.core.chunking": ("ChunkingStrategy",),
    "mellea_sc.core.errors": (
        "BackendBusy",
        "BackendError",
        "BackendNotBound",
        "BackendProtocolError",
        "BackendRejected",
        "BackendTimeout",
        "BackendUnreachable",
        "BudgetExceeded",
        "ChunkingError",
        "DependencyFailed",
        "EngineError",
        "GenerationCancelled",
        "InvalidOption",
        "InvalidVerdict",
        "MelleaError",
        "MissingExtra",
        "ModelError",
        "ModelNotFound",
        "NotAuthorized",
        "PreconditionFailed",
        "PromptTemplateError",
        "RunError",
        "SessionClosed",
        "StreamConsumed",
        "StreamInterrupted",
        "SyncCallInEventLoop",
        "ThunkNotComputed",
        "UnclearJudgement",
        "UsageError",
        "ValidatorTimeout",
        "WrongEventLoop",
    ),
    "mellea_sc.core.model_options": ("ModelOption",),
    "mellea_sc.core.requirement": (
        "PartialValidationResult",
        "Requirement",
        "ValidationResult",
    ),
    "mellea_sc.core.sampling": (
        "SamplingResult",
        "SamplingStrategy",
    ),
    "mellea_sc.core.spending": (
        "Limits",
        "Prices",
        "Spent",
    ),
    "mellea_sc.core.trace": (
        "Cause",
        "TokenCount",
        "Trace",
    ),
    "mellea_sc.helpers.async_helpers": ("wait_for_all_mots",),
    "mellea_sc.runtime.generation": ("BoundBackend",),
    "mellea_sc.runtime.limits": (
        "LimitedBlock",
        "limits",
    ),
    "mellea_sc.runtime.thunk": (
        "GenerationInfo",
        "ModelOutputThunk",
    ),
    "mellea_sc.stdlib.chunking": (
        "ParagraphChunker",
        "RawChunker",
        "SentenceChunker",
        "WordChunker",
        "resolve_chunking",
    ),
    "mellea_sc.stdlib.components": (
        "Instruction",
        "MObject",
        "MObjectProtocol",
        "Message",
        "Query",
        "SimpleComponent",
        "Transform",
    ),
    "mellea_sc.stdlib.context": (
        "ChatContext",
        "SimpleContext",
    ),
    "mellea_sc.stdlib.events": (
        "ChunkEvent",
        "CompletedEvent",
        "ErrorEvent",
        "FilteredEvent",
        "FullValidationEvent",
        "InputCheckEvent",
        "QuickCheckEvent",
        "RetractEvent",
        "RetryEvent",
        "StreamEvent",
        "StreamingDoneEvent",
    ),
    "mellea_sc.stdlib.requirements": (
        "CodeBlocks",
        "LLMJudge",
        "MaxCharacters",
        "MaxSentences",
        "MaxWords",
        "MustMatch",
        "MustNotMatch",
        "NoPII",
        "NoRepetition",
        "NoSecrets",
        "ValidJSON",
        "check",
        "req",
        "simple_validate",
    ),
    "mellea_sc.stdlib.sampling": (
        "Ask",
        "AttemptResult",
        "BacktrackStrategy",
        "BaseSamplingStrategy",
        "BestOfNStrategy",
        "Choice",
        "MajorityVotingStrategy",
        "MultiTurnStrategy",
        "PlannedStrategy",
        "RacingStrategy",
        "RejectionSamplingStrategy",
        "RepairTemplateStrategy",
    ),
    "mellea_sc.stdlib.session": (
        "MelleaSession",
        "start_session",
    ),
    "mellea_sc.stdlib.stream_result": ("StreamChunkingResult",),
    "mellea_sc.stdlib.streaming": (
        "StreamRequest",
        "stream_with_chunking",
    ),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> object:
    if (room := _ROOM_OF.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(room), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
