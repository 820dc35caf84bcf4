"""How to talk to models: one module per protocol.

model_options.py   ModelOption, and what each protocol calls the options
model_ids.py       names of models that differ from server to server
openai.py          any server with OpenAI's chat completions
ollama.py          Ollama
local.py           the embedded engine, a child process
retry.py           another backend, whose requests are made again
select.py          which backend a session gets
http/              what the backends over HTTP share
engine/            what the embedded one runs
_weights.py        its default model's file: fetched once, checked, kept in the user's cache

The classes are imported when they are first asked for: most programs need only ``ModelOption``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mellea_sc.core.model_options import ModelOption

if TYPE_CHECKING:
    from mellea_sc.backends import model_ids as model_ids
    from mellea_sc.backends.local import LocalBackend
    from mellea_sc.backends.model_ids import ModelIdentifier
    from mellea_sc.backends.ollama import OllamaBackend
    from mellea_sc.backends.openai import OpenAIBackend
    from mellea_sc.backends.retry import Retrying
    from mellea_sc.backends.select import OpenAISettings, ServerSettings, make_backend
    from mellea_sc.core.backend import Backend

__all__ = [
    "Backend",
    "LocalBackend",
    "ModelIdentifier",
    "ModelOption",
    "OllamaBackend",
    "OpenAIBackend",
    "OpenAISettings",
    "Retrying",
    "ServerSettings",
    "make_backend",
    "model_ids",
]

_HOMES = {
    "Backend": "mellea_sc.core.backend",
    "LocalBackend": "mellea_sc.backends.local",
    "ModelIdentifier": "mellea_sc.backends.model_ids",
    "OllamaBackend": "mellea_sc.backends.ollama",
    "OpenAIBackend": "mellea_sc.backends.openai",
    "OpenAISettings": "mellea_sc.backends.select",
    "Retrying": "mellea_sc.backends.retry",
    "ServerSettings": "mellea_sc.backends.select",
    "make_backend": "mellea_sc.backends.select",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "model_ids":
        return import_module("mellea_sc.backends.model_ids")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
