"""Who is measured, and the virtual environment that each is installed in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONTESTANTS", "Contestant", "Environments"]

HERE = Path(__file__).parent
PROJECT = HERE.parent


@dataclass(frozen=True)
class Contestant:
    """A column of the table.

    Args:
        name: As the report calls it.
        adapter: The module in adapters/.
        packages: What its environment has installed; ``"."`` is this project.
        loop: The event loop that it runs on.
        bench_only: Packages of the environment that are there only for the measuring.
    """

    name: str
    adapter: str
    packages: tuple[str, ...]
    loop: str = "asyncio"
    bench_only: tuple[str, ...] = ()


OURS = (".[trio]", "uvloop")
FAST = (".[trio,fast]",)

CONTESTANTS = {
    "ours": Contestant("mellea_sc, asyncio", "ours", OURS),
    "ours-uvloop": Contestant("mellea_sc, uvloop", "ours", OURS, loop="uvloop"),
    "ours-trio": Contestant("mellea_sc, trio", "ours", OURS, loop="trio"),
    "ours-fast": Contestant("mellea_sc[fast], asyncio", "ours", FAST),
    "ours-fast-uvloop": Contestant("mellea_sc[fast], uvloop", "ours", FAST, loop="uvloop"),
    "ours-alone": Contestant("mellea_sc", "ours", (".",)),
    "m8": Contestant("Mellea 0.8.0", "mellea_0_8", ("mellea==0.8.0",)),
    "m7": Contestant("Mellea 0.7.0", "mellea_0_7", ("mellea==0.7.0",)),
    "openai": Contestant("openai", "openai_client", ("openai",)),
    "pydantic-ai": Contestant("pydantic-ai-slim", "pydantic_ai", ("pydantic-ai-slim[openai]",)),
    "agents": Contestant("openai-agents", "openai_agents", ("openai-agents",)),
    "guardrails": Contestant("guardrails-ai", "guardrails_ai", ("guardrails-ai",)),
    "nemo": Contestant("nemoguardrails", "nemo_guardrails", ("nemoguardrails",)),
    "bare": Contestant("bare loop (the limit)", "bare", OURS),
    "bare-anyio": Contestant("bare anyio, a scoped task each", "bare_anyio", OURS),
    "bare-trio": Contestant(
        "bare anyio on trio, a scoped task each", "bare_anyio", OURS, loop="trio"
    ),
    "bare-httpx": Contestant("bare httpx (the limit)", "bare", OURS),
    "bare-httpx-uvloop": Contestant("bare httpx, uvloop", "bare", OURS, loop="uvloop"),
    "bare-httpx-trio": Contestant("bare httpx, trio", "bare", OURS, loop="trio"),
    "bare-aiohttp": Contestant("bare aiohttp", "bare_aiohttp", FAST),
    "bare-aiohttp-uvloop": Contestant("bare aiohttp, uvloop", "bare_aiohttp", FAST, loop="uvloop"),
    "bare-alone": Contestant("bare httpx", "bare", ("httpx",)),
}


class Environments:
    """The virtual environments, made where they are not there yet.

    Args:
        folder: Where they are kept from one run to the next.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._uv = shutil.which("uv")
        self._made: dict[tuple[str, ...], Path] = {}

    def python(self, contestant: Contestant) -> Path:
        """The interpreter that has the contestant installed; this project is installed afresh."""
        packages = contestant.packages
        if packages not in self._made:
            is_ours = packages[0].startswith(".")
            name = re.sub(r"[^\w.]+", "-", "-".join(packages).replace(".", "mellea_sc", is_ours))
            python = self._folder / name / "bin" / "python"
            complete = self._folder / name / "complete"
            if is_ours or not complete.exists():
                print(f"installing {', '.join(packages)}", flush=True)
                self._install(python, packages, refresh=is_ours)
                complete.touch()
            self._made[packages] = python
        return self._made[packages]

    def _install(self, python: Path, packages: tuple[str, ...], *, refresh: bool) -> None:
        home = str(python.parent.parent)
        wanted = [p.replace(".", str(PROJECT), 1) if p.startswith(".") else p for p in packages]
        if self._uv is None:
            _run(sys.executable, "-m", "venv", home)
            _run(str(python), "-m", "pip", "install", "--quiet", *wanted)
            if refresh:
                again = ["--force-reinstall", "--no-deps", str(PROJECT)]
                _run(str(python), "-m", "pip", "install", "--quiet", *again)
            return
        if not python.exists():
            _run(self._uv, "venv", "--quiet", "--python", sys.executable, home)
        again = ["--reinstall-package=mellea_sc", "--refresh-package=mellea_sc"] if refresh else []
        _run(
            *(self._uv, "pip", "install", "--quiet", "--compile-bytecode"),
            *("--python", str(python), *again, *wanted),
        )

    def inventory(self, contestant: Contestant) -> dict[str, object]:
        """What is installed: names with versions, and how much room they take on the disk."""
        program = (
            "import importlib.metadata as m, json, os, sysconfig\n"
            "found = {d.name: d for d in m.distributions()}\n"
            "for tool in ('pip', 'setuptools', 'wheel'): found.pop(tool, None)\n"
            "size = sum(os.path.getsize(d.locate_file(f)) for d in found.values()\n"
            "    for f in d.files or () if os.path.exists(d.locate_file(f))\n"
            "    and not str(f).endswith('.pyc'))\n"
            "print(json.dumps({'versions': {n: d.version for n, d in sorted(found.items())},"
            " 'bytes': size}))"
        )
        said = subprocess.run(
            [str(self.python(contestant)), "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env=clean_environment(),
        )
        return json.loads(said.stdout)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, env=clean_environment())


def clean_environment() -> dict[str, str]:
    """The environment variables that a child gets: none that change how Python or a library runs."""
    changing = ("PYTHON", "MELLEA", "OPENAI", "OLLAMA", "VIRTUAL_ENV", "OTEL")
    return {name: value for name, value in os.environ.items() if not name.startswith(changing)}
