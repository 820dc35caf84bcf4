"""Backends: one module per protocol.

model_options.py   Mellea's import path of ModelOption
model_ids.py       models whose names differ between servers
openai.py          servers with OpenAI's chat completions
ollama.py          Ollama
local.py           the embedded engine, a child process
retry.py           a wrapper that retries requests
select.py          selects the backend of a session
http/              shared by the backends over HTTP
engine/            the process of the embedded engine
_weights.py        the file of its default model: downloaded once, verified, kept in the user's cache

The classes are imported when they are first asked for: most programs need only ``ModelOption``.
"""

from mellea_sc._lazy import export_lazily

export_lazily(__name__)
