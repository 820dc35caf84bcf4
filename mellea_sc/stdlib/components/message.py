"""A message of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mellea_sc.core.base import ROLES, SPANS, Component, Role, Span, checked_texts, no_span, text_of
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.generation_info import ToolCall
from mellea_sc.stdlib.components._template import check_template, fill

__all__ = ["Message"]


class Message(Component):
    """A message with a role and a content.

    Args:
        role: ``"user"``, ``"assistant"``, ``"system"`` or ``"tool"``.
        content: The content; may be a thunk.
        user_variables: Named texts to fill in; with them a ``str`` content is a template.
        reasoning: The model's reasoning before the message. It is not sent in prompts.
        tool_calls: The model's tool calls.

    Raises:
        InvalidOption: an argument is not usable.
        PromptTemplateError: the template is not valid, or uses a variable that is not given.
    """

    def __init__(
        self,
        role: Role,
        content: Span,
        *,
        user_variables: Mapping[str, Span] | None = None,
        reasoning: str = "",
        tool_calls: Sequence[ToolCall] = (),
    ) -> None:
        if role not in ROLES:
            raise InvalidOption(f"role must be one of {', '.join(ROLES)}, not {role!r}")
        if not isinstance(content, SPANS):
            raise no_span("a message's content", content)
        self.role: Role = role
        self.reasoning = reasoning
        self.tool_calls: Sequence[ToolCall] = tool_calls
        self._content = content
        self._variables = (
            None if user_variables is None else checked_texts("user_variables", user_variables)
        )
        if user_variables is not None and isinstance(content, str):
            check_template(content, user_variables)

    @property
    def content(self) -> str:
        """The content, with the variables filled in."""
        if self._variables is not None and isinstance(self._content, str):
            return fill(self._content, self._variables)
        return text_of(self._content)

    def parts(self) -> Sequence[Span]:
        """The content and the variables."""
        return [self._content, *(self._variables or {}).values()]

    def summary(self) -> str:
        """The beginning of the content."""
        return self._content if isinstance(self._content, str) else f"a message of {self.role}"

    def format_for_llm(self) -> str:
        """The content."""
        return self.content

    def __str__(self) -> str:
        return self.content

    def __repr__(self) -> str:
        return f"Message({self.role!r}, {self._content!r})"
