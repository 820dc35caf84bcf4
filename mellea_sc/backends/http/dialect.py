"""Which features of OpenAI's protocol a server supports, learned from its refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, Literal

import attrs

from mellea_sc.backends.http.json_values import fields_of
from mellea_sc.core.backend import JsonSchema
from mellea_sc.core.errors import BackendRejected

__all__ = ["Dialect", "describe", "has_schema"]


@attrs.define(eq=False)
class Dialect:
    """The known features of a server.

    Args:
        max_tokens: The name of the parameter for the maximum length of an answer.
        stream_options: Whether it accepts ``stream_options``.
        json_schema: Whether it can constrain an answer to a schema.
        marks_prefix: Whether a message to continue must be marked as a prefix.
    """

    max_tokens: Literal["max_tokens", "max_completion_tokens"]
    stream_options: bool = True
    json_schema: bool = True
    marks_prefix: bool = False

    def learn(self, payload: Mapping[str, object], error: BackendRejected) -> bool:
        """Learn from the refusal of a request; true if something was learned."""
        if error.status not in (400, 422):
            return False
        words = error.body
        if "stream_options" in payload and "stream_options" in words:
            self.stream_options = False
        elif "max_tokens" in payload and "max_completion_tokens" in words:
            self.max_tokens = "max_completion_tokens"
        elif "continue_final_message" in payload and _GO_ON.search(words):
            self.marks_prefix = True
        elif has_schema(payload) and _refuses_schemas(words.lower()):
            self.json_schema = False
        else:
            return False
        return True


_GO_ON: Final = re.compile("continue_final_message|add_generation_prompt")


def has_schema(payload: Mapping[str, object]) -> bool:
    """Whether a request constrains the answer to a schema."""
    return fields_of(payload.get("response_format")).get("type") == "json_schema"


def _refuses_schemas(words: str) -> bool:
    """Whether the server refuses all schemas, and not just this one for its content."""
    if "invalid schema" in words or "invalid_json_schema" in words:
        return False
    return "response_format" in words or "json_schema" in words or "response format" in words


def describe(schema: JsonSchema, messages: list[dict[str, object]]) -> None:
    """Put a schema into the system message, for servers that cannot constrain an answer to it."""
    said = (
        f"Answer with nothing but a JSON object that fits this JSON schema:\n{json.dumps(schema)}"
    )
    if messages and messages[0]["role"] == "system":
        messages[0]["content"] = f"{messages[0]['content']}\n\n{said}"
    else:
        messages.insert(0, {"role": "system", "content": said})
