"""Blocking calls: the a-methods of a conversation for programs that have no event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from mellea_sc.runtime.failures import shorten
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.portal import refuse_in_event_loop

if TYPE_CHECKING:
    from mellea_sc.stdlib.conversation import Conversation

__all__ = ["blocking_half"]

P = ParamSpec("P")
T = TypeVar("T")


def blocking_half(
    method: Callable[Concatenate[Conversation, P], Coroutine[object, object, T]],
) -> Callable[Concatenate[Conversation, P], T]:
    """The blocking half of an a-method: same arguments, same result, which is computed on return."""
    name = method.__name__
    what, instead = f"m.{name[1:]}()", f"await m.{name}(…)"

    @wraps(method)
    def call(self: Conversation, /, *args: P.args, **kwargs: P.kwargs) -> T:
        async def until_computed() -> T:
            result = await method(self, *args, **kwargs)
            if isinstance(result, ModelOutputThunk):
                async with result:
                    await result.avalue()
            return result

        refuse_in_event_loop(what, instead)
        try:
            return self.run_blocking(until_computed)
        except (Exception, BaseExceptionGroup) as error:
            shorten(error)
            raise

    call.__name__ = name[1:]
    call.__qualname__ = method.__qualname__.replace(name, name[1:])
    call.__doc__ = (
        f"Like :meth:`{name}`, and waits until the result is computed.\n\n"
        "Runs in the session's own event-loop thread; Ctrl-C cancels what it started.\n\n"
        "Raises:\n    SyncCallInEventLoop: an event loop runs in this thread; the error names the a-method.\n"
        "    Exception: as awaiting the result raises it.\n"
    )
    return call
