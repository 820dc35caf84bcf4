"""Which backend a session gets: by its name, by the environment, by what is installed."""

from __future__ import annotations

import importlib.util
import os
from typing import Final

from mellea_sc.core.backend import Backend
from mellea_sc.core.errors import InvalidOption

__all__ = ["BACKEND_NAMES", "make_backend"]

BACKEND_NAMES: Final = ("local", "ollama", "openai")
"""What a backend can be called."""
DEFAULT_OLLAMA_MODEL: Final = "granite4:micro"


def make_backend(
    backend_name: str | None = None,
    model_id: str | None = None,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
) -> Backend:
    """The backend of a name; nothing is opened yet.

    Args:
        backend_name: ``"local"``, ``"ollama"`` or ``"openai"``. By default what ``MELLEA_SC_BACKEND``
            says, else ``"local"`` where its extra is installed, else ``"ollama"``.
        model_id: The model; for ``"local"`` also the path of a GGUF file. By default what
            ``MELLEA_SC_MODEL`` says, else one that suits the backend.
        base_url: Where the server is.
        api_key: The key that it wants.

    Raises:
        InvalidOption: an unknown name, or an argument that this backend has no use for.
    """
    name = backend_name or os.environ.get("MELLEA_SC_BACKEND") or _installed()
    model = model_id or os.environ.get("MELLEA_SC_MODEL") or None
    match name:
        case "openai":
            from mellea_sc.backends.openai import OpenAIBackend

            if model is None:
                raise InvalidOption(
                    "the openai backend has no model of its own to fall back on: give model_id, or set "
                    "MELLEA_SC_MODEL"
                )
            return OpenAIBackend(model, base_url=base_url, api_key=api_key)
        case "ollama":
            from mellea_sc.backends.ollama import OllamaBackend

            _refuse(name, api_key=api_key)
            return OllamaBackend(model or DEFAULT_OLLAMA_MODEL, base_url=base_url)
        case "local":
            from mellea_sc.backends.local import LocalBackend

            _refuse(name, base_url=base_url, api_key=api_key)
            return LocalBackend(model)
        case _:
            raise InvalidOption(
                f"there is no backend called {name!r}: the names are {', '.join(BACKEND_NAMES)}"
            )


def _installed() -> str:
    return "local" if importlib.util.find_spec("xllamacpp") is not None else "ollama"


def _refuse(backend_name: str, **arguments: str | None) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise InvalidOption(f"the {backend_name} backend has no use for {name}")
