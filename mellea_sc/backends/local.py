"""The embedded model: a small model that pip alone installs, run in a child process.

A crash of the engine is an ordinary error, and does not end the user's process. The engine speaks OpenAI's protocol
over a unix socket in a private directory (on other systems, over loopback), with a random key.
"""

from __future__ import annotations

import copy
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from mellea_sc.backends._weights import SMOLLM2, ProgressCallback, fetch
from mellea_sc.backends._weights import Progress as Progress
from mellea_sc.backends.engine.process import Engine, EngineSpec, Lease, lease, require_engine
from mellea_sc.core.backend import Backend, ChatMessage, Delta, GenerationRequest, ModelOption
from mellea_sc.core.errors import (
    BackendUnreachable,
    InvalidOption,
    StreamInterrupted,
)

if TYPE_CHECKING:
    from typing import Self

    from mellea_sc.backends.openai import OpenAIBackend

SYSTEM_PROMPT: Final = "You are a helpful assistant. You answer correctly and fully."
"""The default system prompt. Without one, the model's template inserts its own, with which the model rambles."""
MAX_NEW_TOKENS: Final = 512
"""The default limit of an answer: a small model does not always stop by itself."""


class LocalBackend(Backend):
    """A model in a child process: downloaded at first use, and run by an engine that sessions share.

    An answer has at most 512 tokens, unless ``ModelOption.MAX_NEW_TOKENS`` is set; prompt and answer together have
    at most 4096. Four requests run at the same time, others wait. The default model is never used as a judge,
    because it says yes to everything; a model from a file is.

    Args:
        model_id: The path of a GGUF file; by default the one in ``MELLEA_SC_MODEL``, if that names
            one, else SmolLM2-135M-Instruct, which is downloaded to the user's cache directory.
        progress: Called, in the event loop, while the model is downloaded and loaded.

    Raises:
        InvalidOption: there is no such file, or no such model.
    """

    provider = "local"
    prefills = True

    def __init__(
        self, model_id: str | None = None, *, progress: ProgressCallback | None = None
    ) -> None:
        self._gguf = _gguf_of(model_id)
        self.model_id: str = SMOLLM2.name if self._gguf is None else self._gguf.stem
        # measured: SmolLM2 says yes even in clear cases, whatever the wording of the question
        self.judges: bool = self._gguf is not None
        self._progress: ProgressCallback = progress or _ignore
        self.lease: Lease | None = None

    def __repr__(self) -> str:
        return f"LocalBackend({self.model_id if self._gguf is None else str(self._gguf)!r})"

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Self]:
        """A block within which the engine runs; the engine is started unless another session has done so.

        Raises:
            MissingExtra: the engine is not installed.
            EngineError: the model cannot be downloaded, or the engine does not start.

        Cancellation: a download is stopped and leaves no files; the engine ends with its last user.
        """
        if self.lease is not None:
            yield self
            return
        require_engine()
        model = await fetch(SMOLLM2, self._progress) if self._gguf is None else self._gguf
        self._progress(Progress("loading"))
        async with lease(EngineSpec(model)) as held:
            self._progress(Progress("ready"))
            connected = copy.copy(self)
            connected.lease = held
            yield connected

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Open a generation; see :meth:`Backend.open`.

        Raises:
            EngineError: the engine died; the next request starts another.
        """
        async with AsyncExitStack() as stack:
            connected = await stack.enter_async_context(self.connected())
            assert connected.lease is not None
            engine = await connected.lease.engine()
            # A new client for each request: the engine may close a kept connection at the moment when it is reused,
            # and over a local socket a new connection costs almost nothing.
            client = _client(self.model_id, engine)
            try:
                deltas = await stack.enter_async_context(client.open(self._completed(request)))
            except (BackendUnreachable, StreamInterrupted) as error:
                await engine.check(error)  # noqa: ASYNC120 - a cancellation goes before
                raise
            yield await stack.enter_async_context(aclosing(_deltas(deltas, engine)))

    def _completed(self, request: GenerationRequest) -> GenerationRequest:
        messages = request.messages
        if not any(message.role == "system" for message in messages):
            messages = (ChatMessage("system", SYSTEM_PROMPT), *messages)
        options = {
            # Makes the engine report its progress through the prompt. Only by writing it notices that the client
            # has disconnected. Without this, the prompt of a cancelled request is processed to its end.
            "return_progress": True,
            **(SMOLLM2.sampling if self._gguf is None else {}),
            **{key: value for key, value in request.options.items() if value is not None},
        }
        if "max_tokens" not in options:
            options.setdefault(ModelOption.MAX_NEW_TOKENS, MAX_NEW_TOKENS)
        return attrs.evolve(request, messages=messages, options=options)


def _gguf_of(model_id: str | None) -> Path | None:
    """The GGUF file that the user has chosen; ``None``: the default model."""
    if model_id is None:
        named = os.environ.get("MELLEA_SC_MODEL", "")
        model_id = named if named.endswith(".gguf") else SMOLLM2.name
    if model_id == SMOLLM2.name:
        return None
    path = Path(model_id).expanduser().absolute()
    if path.suffix != ".gguf":
        raise InvalidOption(
            f"the local backend runs {SMOLLM2.name} or the file of a model, its path ending in .gguf; it "
            f"does not know {model_id!r}"
        )
    if not path.is_file():
        raise InvalidOption(f"there is no file {path}")
    return path


def _client(model_id: str, engine: Engine) -> OpenAIBackend:
    from mellea_sc.backends.openai import OpenAIBackend

    return OpenAIBackend(model_id, base_url=engine.url, api_key=engine.key, uds=engine.uds)


async def _deltas(deltas: AsyncIterator[Delta], engine: Engine) -> AsyncGenerator[Delta]:
    try:
        async for delta in deltas:
            yield delta
    except StreamInterrupted as error:
        await engine.check(error)  # noqa: ASYNC120 - a cancellation goes before
        raise


def _ignore(_: Progress) -> None:
    pass
