"""Generative programming with language models on structured concurrency.

core/       values and contracts: what goes to a model, requirements, backends, errors
runtime/    the kernel: nurseries, generations, checks, budgets
backends/   how to talk to a model: OpenAI's protocol, Ollama's, an embedded engine
stdlib/     what users compose: sessions, streams, components, requirements, strategies
helpers/    waiting for several thunks
testing/    what users test their own programs with
asgi.py     checked streams as responses of web servers
cli/        the command mellea-sc

What most programs need can be imported from here, as well as all errors; see ``__init__.pyi``. The other public names
are in ``stdlib``, ``backends`` and ``core``, each with such a list. A name's module is imported when the name is first used.
"""

from mellea_sc._lazy import export_lazily

export_lazily(__name__)
