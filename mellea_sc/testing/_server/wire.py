"""What the answers of a model server look like, in each of the two protocols."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from mellea_sc.core.backend import ToolCall, Usage

__all__ = ["OllamaWire", "OpenAIWire", "Wire"]


class Wire(Protocol):
    """How a protocol writes the parts of an answer."""

    @property
    def content_type(self) -> str:
        """Of a streamed answer."""
        ...

    def delta(self, text: str) -> bytes:
        """The next piece of text."""
        ...

    def reasoning(self, text: str) -> bytes:
        """The next piece of reasoning."""
        ...

    def calls(self, calls: Sequence[ToolCall]) -> bytes:
        """All calls."""
        ...

    def end(self, finish_reason: str, usage: Usage | None) -> bytes:
        """What comes after the last piece."""
        ...

    def error(self, words: str) -> bytes:
        """An error object inside the stream."""
        ...

    def error_body(self, words: str) -> bytes:
        """The body of an error answer."""
        ...

    def malformed(self) -> bytes:
        """A piece that breaks off in the middle of its line."""
        ...

    def huge(self) -> bytes:
        """The beginning of a line that goes on for long."""
        ...

    def models(self, names: Sequence[str]) -> bytes:
        """The list of models."""
        ...


class OpenAIWire:
    """Chat completions: server-sent events.

    Args:
        model: The model's name, as it was asked for.
    """

    content_type = "text/event-stream"

    def __init__(self, model: str) -> None:
        self._model = model

    def delta(self, text: str) -> bytes:
        """The next piece of text."""
        return self._delta({"content": text})

    def reasoning(self, text: str) -> bytes:
        """The next piece of reasoning."""
        return self._delta({"reasoning_content": text})

    def calls(self, calls: Sequence[ToolCall]) -> bytes:
        """All calls, one after the other: the name first, and then the arguments in two pieces."""
        events: list[bytes] = []
        for index, call in enumerate(calls):
            half = len(call.arguments) // 2
            named: dict[str, object] = {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name},
            }
            pieces: list[dict[str, object]] = [
                named,
                {"function": {"arguments": call.arguments[:half]}},
                {"function": {"arguments": call.arguments[half:]}},
            ]
            events += [self._delta({"tool_calls": [{"index": index} | one]}) for one in pieces]
        return b"".join(events)

    def end(self, finish_reason: str, usage: Usage | None) -> bytes:
        """Why the model stopped, the usage in an event of its own, and the end marker."""
        nothing: dict[str, str] = {}
        events = self._event(
            choices=[{"index": 0, "delta": nothing, "finish_reason": finish_reason}]
        )
        if usage is not None:
            events += self._event(
                choices=[],
                usage={
                    "prompt_tokens": usage.prompt_tokens,
                    "completion_tokens": usage.completion_tokens,
                    "total_tokens": usage.total_tokens,
                },
            )
        return events + b"data: [DONE]\n\n"

    def error(self, words: str) -> bytes:
        """An error object inside the stream."""
        return b"data: " + self.error_body(words) + b"\n\n"

    def error_body(self, words: str) -> bytes:
        """The body of an error answer."""
        return json.dumps(
            {"error": {"message": words, "type": "server_error", "code": None}}
        ).encode()

    def malformed(self) -> bytes:
        """A piece that breaks off in the middle of its line."""
        return b'data: {"choices": [{"index": 0, "delta": {"cont\n\n'

    def huge(self) -> bytes:
        """The beginning of a line that goes on for long."""
        return b'data: {"choices": [{"index": 0, "delta": {"content": "'

    def models(self, names: Sequence[str]) -> bytes:
        """The list of models."""
        models = [{"id": name, "object": "model"} for name in names]
        return json.dumps({"object": "list", "data": models}).encode()

    def _delta(self, delta: Mapping[str, object]) -> bytes:
        return self._event(choices=[{"index": 0, "delta": delta, "finish_reason": None}])

    def _event(self, **fields: object) -> bytes:
        chunk = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "model": self._model}
        return b"data: " + json.dumps(chunk | fields).encode() + b"\n\n"


class OllamaWire:
    """Ollama's chat: one JSON object per line.

    Args:
        model: The model's name, as it was asked for.
    """

    content_type = "application/x-ndjson"

    def __init__(self, model: str) -> None:
        self._model = model

    def delta(self, text: str) -> bytes:
        """The next piece of text."""
        return self._line(message={"role": "assistant", "content": text}, done=False)

    def reasoning(self, text: str) -> bytes:
        """The next piece of reasoning."""
        message = {"role": "assistant", "content": "", "thinking": text}
        return self._line(message=message, done=False)

    def calls(self, calls: Sequence[ToolCall]) -> bytes:
        """All calls, each of them whole in a line."""
        lines: list[bytes] = []
        for call in calls:
            function = {"name": call.name, "arguments": json.loads(call.arguments)}
            called = [{"id": call.id, "function": function}]
            message = {"role": "assistant", "content": "", "tool_calls": called}
            lines.append(self._line(message=message, done=False))
        return b"".join(lines)

    def end(self, finish_reason: str, usage: Usage | None) -> bytes:
        """The line that says that it is done, with the counts."""
        counts = (
            {}
            if usage is None
            else {"prompt_eval_count": usage.prompt_tokens, "eval_count": usage.completion_tokens}
        )
        message = {"role": "assistant", "content": ""}
        return self._line(message=message, done=True, done_reason=finish_reason, **counts)

    def error(self, words: str) -> bytes:
        """An error object inside the stream."""
        return self.error_body(words) + b"\n"

    def error_body(self, words: str) -> bytes:
        """The body of an error answer."""
        return json.dumps({"error": words}).encode()

    def malformed(self) -> bytes:
        """A piece that breaks off in the middle of its line."""
        return b'{"model": "m", "message": {"role": "assist\n'

    def huge(self) -> bytes:
        """The beginning of a line that goes on for long."""
        return b'{"done": false, "message": {"role": "assistant", "content": "'

    def models(self, names: Sequence[str]) -> bytes:
        """The list of models."""
        return json.dumps({"models": [{"name": name, "model": name} for name in names]}).encode()

    def _line(self, **fields: object) -> bytes:
        return json.dumps({"model": self._model} | fields).encode() + b"\n"
