"""Selects the backend of a session: by its name, the environment, and the installed packages."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, TypedDict, Unpack, cast

from mellea_sc.backends.http.environment import Verify
from mellea_sc.backends.model_ids import ModelIdentifier, name_of
from mellea_sc.core.backend import Backend
from mellea_sc.core.errors import InvalidOption

if TYPE_CHECKING:
    from mellea_sc.backends.http.client import AnyClient

BACKEND_NAMES: Final = ("local", "ollama", "openai")
"""The names of backends."""


class ServerSettings(TypedDict, total=False):
    """Settings of the HTTP backends, documented at :class:`OllamaBackend`."""

    base_url: str | None
    api_key: str | None
    headers: Mapping[str, str] | None
    client: AnyClient | None
    verify: Verify
    proxy: bool | str
    timeout: float | None
    extra_body: Mapping[str, object] | None


class OpenAISettings(ServerSettings, total=False):
    """Additional settings of :class:`OpenAIBackend`."""

    stream_options: Mapping[str, object] | None
    strict: bool | None
    prefills: bool | Literal["prefix"]
    uds: str | None


def make_backend(
    backend_name: str | None = None,
    model_id: str | ModelIdentifier | None = None,
    **settings: Unpack[OpenAISettings],
) -> Backend:
    """Make the backend with a name; it connects to nothing yet.

    Args:
        backend_name: ``"local"``, ``"ollama"`` or ``"openai"``. By default ``MELLEA_SC_BACKEND``, else ``"local"`` if
            its extra is installed, else ``"ollama"``.
        model_id: The model, by its name or as one of ``model_ids``; for ``"local"`` the path of a GGUF file.
            By default ``MELLEA_SC_MODEL``, else a default of the backend.
        settings: Settings for ``"ollama"`` and ``"openai"``: ``base_url``, ``api_key``, ``headers``,
            ``client``, ``verify``, ``proxy``, ``timeout``, ``extra_body``, and for ``"openai"`` also
            ``stream_options``, ``strict``, ``prefills`` and ``uds``.

    Raises:
        InvalidOption: an unknown name, or a setting that this backend does not have.
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
            _refuse(name, settings, OpenAISettings.__optional_keys__)
            return OpenAIBackend(model, **settings)
        case "ollama":
            from mellea_sc.backends.ollama import DEFAULT_MODEL, OllamaBackend

            _refuse(name, settings, ServerSettings.__optional_keys__)
            return OllamaBackend(model or DEFAULT_MODEL, **cast("ServerSettings", _given(settings)))
        case "local":
            from mellea_sc.backends.local import LocalBackend

            _refuse(name, settings, frozenset())
            return LocalBackend(None if model is None else name_of(model, name))
        case _:
            raise InvalidOption(
                f"there is no backend called {name!r}: the names are {', '.join(BACKEND_NAMES)}"
            )


def _installed() -> str:
    return "local" if importlib.util.find_spec("xllamacpp") is not None else "ollama"


def _given(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings without those that are ``None``, which means the default for most of them."""
    return {
        name: value
        for name, value in settings.items()
        if value is not None or name in _NONE_MEANS_NONE
    }


_NONE_MEANS_NONE: Final = ("timeout", "stream_options")


def _refuse(backend_name: str, settings: Mapping[str, object], known: frozenset[str]) -> None:
    for name in _given(settings):
        if name not in known:
            raise InvalidOption(f"the {backend_name} backend has no use for {name}")
