"""What is known about a generation besides its text: its tokens, its tool calls, why it ended.

Tool calls are assembled from the pieces of a stream. In OpenAI's protocol each piece has its call's index, and the
first piece also has the id and the name. Servers differ: some send no index, some send 0 for every call, some repeat
the name or send it last, and some count up for each piece. So a piece belongs to the call with its index, unless the
id or the name contradicts that; a piece with neither id nor name continues the last call; and no piece is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs


@attrs.frozen
class ToolCall:
    """A call of a function that a model requests.

    Args:
        id: The server's id of the call, for the answer to it; empty if there is none.
        name: The function's name.
        arguments: The arguments as the model has written them: usually JSON, but that is not guaranteed.
    """

    id: str
    name: str
    arguments: str


@attrs.frozen
class ToolCallDelta:
    """The next piece of a call.

    Args:
        id: The call's id, if this piece has it.
        name: The function's name, or a part of it, if this piece has it.
        arguments: New text of the arguments.
        index: The index of the call that the piece belongs to, if the server sends one.
    """

    id: str = ""
    name: str = ""
    arguments: str = ""
    index: int | None = None


@attrs.define(eq=False)
class _Open:
    """A call of which more pieces may come."""

    id: str = ""
    name: str = ""
    arguments: list[str] = attrs.field(factory=list[str])


@attrs.define(eq=False, repr=False)
class ToolCallParts:
    """The tool calls of one answer, assembled from their pieces."""

    _calls: list[_Open] = attrs.field(factory=list[_Open], init=False)
    _by_index: dict[int, _Open] = attrs.field(factory=dict[int, _Open], init=False)

    def take(self, piece: ToolCallDelta) -> None:
        """Take the next piece."""
        call = self._call_of(piece)
        call.id = call.id or piece.id
        if piece.name != call.name:
            call.name += piece.name
        if piece.arguments:
            call.arguments.append(piece.arguments)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls so far, in the order of their first pieces."""
        return tuple(ToolCall(one.id, one.name, _joined(one.arguments)) for one in self._calls)

    def _call_of(self, piece: ToolCallDelta) -> _Open:
        known = self._open_call_of(piece)
        if known is None:
            known = _Open()
            self._calls.append(known)
            if piece.index is not None:
                self._by_index[piece.index] = known
        return known

    def _open_call_of(self, piece: ToolCallDelta) -> _Open | None:
        """The call that a piece continues; ``None``: it begins a new one."""
        if piece.index is not None and (known := self._by_index.get(piece.index)) is not None:
            return None if _is_another(piece, known) else known
        last = self._calls[-1] if self._calls else None
        if piece.id:
            if piece.index is not None and piece.name:
                return None
            return next((one for one in self._calls if one.id == piece.id), None)
        if piece.name and (piece.index is not None or (last is not None and last.name)):
            return None
        return last


def _joined(parts: list[str]) -> str:
    """The parts joined; a surrogate pair that was cut in two becomes one character again."""
    text = "".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _is_another(piece: ToolCallDelta, known: _Open) -> bool:
    """Whether a piece begins another call although it has the index of this one, as some servers send it."""
    if not piece.name or not known.name:
        return False
    if piece.id and known.id:
        return piece.id != known.id
    return piece.name != known.name and bool(known.arguments)


CHARACTERS: Final = 4
"""Characters per token in estimates, where a server reports no tokens."""


def estimated_tokens(text: str) -> int:
    """An estimate of the number of tokens in a text: at least one."""
    return max(1, len(text) // CHARACTERS)


@attrs.frozen
class Usage:
    """Tokens, as the server counts them; 0 where it reports none.

    Args:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Generated tokens: text, reasoning and tool calls.
        cached_tokens: The part of the prompt that the server had cached.
        reasoning_tokens: The part of the completion that is reasoning.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


AT_LIMIT: Final = frozenset(
    {
        "length",
        "max_tokens",
        "max_output_tokens",
        "model_length",  # Mistral
        "model_context_window_exceeded",  # Anthropic, z.ai
    }
)
"""Finish reasons of an answer that has reached its maximum length."""
FILTERED: Final = frozenset(
    {
        "content_filter",
        "guardrail_intervened",  # Bedrock
        "refusal",  # Anthropic
        "sensitive",  # z.ai
        *("blocklist", "prohibited_content", "recitation", "safety", "spii"),  # Google
    }
)
"""Finish reasons of an answer that the provider did not want to be given."""


@attrs.frozen(kw_only=True)
class GenerationInfo:
    """What is known about a generation.

    Args:
        model: The model's name.
        provider: The kind of server.
        finish_reason: Why the model stopped (``"stop"``, ``"length"``, …).
        usage: Tokens of all attempts, as far as the server has reported them.
        time_to_first_token: Seconds from sending the request to the first text, reasoning or tool call.
        total_time: Seconds from sending the first request to the end.
        attempts: How many answers were generated.
        reasoning: The model's reasoning, once the answer has ended.
        tool_calls: The model's tool calls, once the answer has ended.
    """

    model: str = ""
    provider: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    time_to_first_token: float | None = None
    total_time: float | None = None
    attempts: int = 1
    reasoning: str = attrs.field(default="", repr=False)
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def is_broken_off(self) -> bool:
        """Whether the server has broken the answer off, so that its text may end in the middle of a word."""
        return self.is_at_limit or self._reason in FILTERED

    @property
    def is_at_limit(self) -> bool:
        """Whether the answer was broken off because it has reached its maximum length."""
        return self._reason in AT_LIMIT

    @property
    def _reason(self) -> str:
        """The finish reason without its details: Gemini's ``content_filter: RECITATION`` is a ``content_filter``."""
        return (self.finish_reason or "").partition(":")[0].strip().lower()

    def summary(self) -> str:
        """Model, tokens and time, as far as they are known, as the end of a line for people."""
        said = [self.model] if self.model else []
        if self.usage is not None:
            said.append(f"{self.usage.completion_tokens} tokens")
        if self.total_time is not None:
            said.append(f"{self.total_time:.1f} s")
        return "".join(f", {one}" for one in said)

    def summed_over(self, attempts: Sequence[GenerationInfo]) -> GenerationInfo:
        """This info with the usage and the total time summed over several attempts, of which this is one."""
        usages = [one.usage for one in attempts if one.usage is not None]
        return attrs.evolve(
            self,
            attempts=len(attempts),
            usage=sum(usages, Usage()) if usages else None,
            total_time=sum(one.total_time or 0.0 for one in attempts),
        )


NOTHING_KNOWN: Final = GenerationInfo()
