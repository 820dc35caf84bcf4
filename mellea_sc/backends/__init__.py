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

from mellea_sc._lazy import export_lazily

export_lazily(__name__)
