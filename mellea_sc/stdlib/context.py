"""The two kinds of context: one that forgets, and one that remembers the conversation or its newest part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Self, cast

from mellea_sc.core.base import ROLES, Context, Role, Span, role_of, text_of
from mellea_sc.core.errors import InvalidOption, ThunkNotComputed
from mellea_sc.core.generation_info import estimated_tokens
from mellea_sc.core.question import check_count
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib.components.chat import Message

__all__ = ["ChatContext", "Context", "SimpleContext"]


class SimpleContext(Context):
    """A context that forgets: the model sees no earlier turns. It keeps only the last turn, for validators."""

    __slots__ = ()

    remembers: ClassVar[int | None] = 2
    is_chat_context: ClassVar[bool] = False


class ChatContext(Context):
    """A context that remembers the conversation, and shows the model all of it or its newest part.

    If several limits are given, the strictest applies. ``max_turns`` and ``max_tokens`` leave out whole turns, so
    that every answer has its question. A system message at the beginning is always shown.

    Args:
        window_size: The maximum number of newest items (a question and its answer are two).
        max_turns: The maximum number of newest turns. A turn ends with an answer.
        max_tokens: The maximum number of tokens of the newest turns together; the last turn is always shown. Tokens
            are estimated as a quarter of the characters, as for limits.

    Raises:
        InvalidOption: a limit is less than 1.
    """

    __slots__ = ("max_tokens", "max_turns", "window_size")

    def __init__(
        self,
        *,
        window_size: int | None = None,
        max_turns: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__()
        check_count("window_size", window_size, or_none=True)
        check_count("max_turns", max_turns, or_none=True)
        check_count("max_tokens", max_tokens, or_none=True)
        self.window_size: int | None = window_size
        self.max_turns: int | None = max_turns
        self.max_tokens: int | None = max_tokens

    @classmethod
    def from_messages(
        cls,
        messages: Iterable[Mapping[str, object]],
        *,
        window_size: int | None = None,
        max_turns: int | None = None,
        max_tokens: int | None = None,
    ) -> Self:
        """A context that continues a conversation of messages.

        Args:
            messages: In OpenAI's form, ``{"role": "user", "content": "…"}``; a content may also be a list of
                parts of type ``"text"``.
            window_size: As of a :class:`ChatContext`.
            max_turns: As of a :class:`ChatContext`.
            max_tokens: As of a :class:`ChatContext`.

        Raises:
            InvalidOption: something is no message, or is a message with more than text in it.
        """
        ctx = cls(window_size=window_size, max_turns=max_turns, max_tokens=max_tokens)
        for message in messages:
            role, text = _message_in(message)
            is_answer = role == "assistant"
            ctx = ctx.add(ModelOutputThunk.computed(text) if is_answer else Message(role, text))
        return ctx

    def without_items(self) -> Self:
        """An empty context with the same limits."""
        return type(self)(
            window_size=self.window_size, max_turns=self.max_turns, max_tokens=self.max_tokens
        )

    def view_for_generation(self) -> list[Span]:
        """The newest items, oldest first."""
        items = self.as_list(self.window_size)
        if self.max_turns is None and self.max_tokens is None:
            return items
        first = 1 if items and role_of(items[0]) == "system" else 0
        begin = self._begin_of_newest(items, first)
        return items[:first] + items[begin:]

    def _begin_of_newest(self, items: list[Span], first: int) -> int:
        """The index of the first item that is shown, apart from the system message."""
        begin, turns, tokens = len(items), 0, 0
        for index in range(len(items) - 1, first - 1, -1):
            tokens += _tokens_of(items[index])
            if self.max_tokens is not None and tokens > self.max_tokens and turns:
                break
            if index > first and role_of(items[index - 1]) != "assistant":
                continue  # in the middle of a turn
            begin, turns = index, turns + 1
            if turns == self.max_turns:
                break
        return begin


def _tokens_of(item: Span) -> int:
    try:
        return estimated_tokens(text_of(item))
    except ThunkNotComputed:
        # It is a thunk that is still being generated, or has one inside. It counts as nothing now, and is counted
        # when the request has waited for it.
        return 0


def _message_in(message: object) -> tuple[Role, str]:
    fields: Mapping[str, object] = {}
    if isinstance(message, Mapping):
        fields = cast("Mapping[str, object]", message)
    role, content = fields.get("role"), fields.get("content")
    if isinstance(content, list):
        parts = [
            cast("Mapping[str, object]", part).get("text") if isinstance(part, Mapping) else part
            for part in cast("list[object]", content)
        ]
        if all(isinstance(part, str) for part in parts):
            content = "".join(cast("list[str]", parts))
    if role not in ROLES or not isinstance(content, str):
        raise InvalidOption(
            'a message is {"role": …, "content": "…"}, its role one of '
            f"{', '.join(ROLES)}, and its content a text; not {message!r}"
        )
    return role, content
