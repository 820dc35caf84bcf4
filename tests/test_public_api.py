"""The public names: all there, all documented, and cheap to import."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import FunctionType

import pytest

import mellea_sc
import mellea_sc.testing
from mellea_sc._lazy import exported
from mellea_sc.core.question import ConditionArguments
from mellea_sc.stdlib.calls import (
    ActArguments,
    InstructArguments,
    QueryArguments,
    StreamArguments,
)
from mellea_sc.testing import ScriptedBackend

HEAVY = {
    "click",
    "h11",
    "httpx",
    "hypothesis",
    "jinja2",
    "jsonschema",
    "pydantic",
    "pytest",
    "referencing",
    "regex",
    "rich",
    "trio",
}

MODULE_OF = exported("mellea_sc")


@pytest.mark.parametrize("name", mellea_sc.__all__)
def test_a_public_name_can_be_imported_and_is_that_of_its_module(name: str) -> None:
    value = getattr(mellea_sc, name)
    home = MODULE_OF[name]
    assert getattr(importlib.import_module(home), name) is value
    assert name in dir(mellea_sc)


PACKAGES = [
    "mellea_sc",
    "mellea_sc.backends",
    "mellea_sc.core",
    "mellea_sc.stdlib",
    "mellea_sc.stdlib.requirements",
]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_in_a_stub_is_exported_and_nothing_else(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    stub = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    names = {
        alias.asname: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert names
    assert list(names) == module.__all__
    for name, home in names.items():
        assert home is not None
        assert getattr(module, name) is getattr(importlib.import_module(home), name)


def test_every_error_is_public() -> None:
    from mellea_sc.core import errors

    assert set(errors.__all__) <= set(mellea_sc.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = mellea_sc.nothing
    with pytest.raises(ImportError):
        from mellea_sc import nothing  # noqa: F401


def test_the_root_has_what_most_programs_need_and_no_more() -> None:
    errors = {name for name in mellea_sc.__all__ if isinstance(getattr(mellea_sc, name), type)}
    errors = {name for name in errors if issubclass(getattr(mellea_sc, name), BaseException)}
    assert len(mellea_sc.__all__) - len(errors) <= 53
    assert len(mellea_sc.__all__) <= 88


@pytest.mark.parametrize("name", ["Span", "ModelOptions", "Format", "Thunk", "OnFail"])
def test_a_type_that_subclasses_need_can_be_imported_from_the_root(name: str) -> None:
    assert name in mellea_sc.__all__


@pytest.mark.parametrize(
    ("package", "name", "room"),
    [
        ("mellea_sc", "PlannedStrategy", "mellea_sc.stdlib"),
        ("mellea_sc", "OpenAIBackend", "mellea_sc.backends"),
        ("mellea_sc", "Limits", "mellea_sc.core"),
        ("mellea_sc.stdlib", "MaxWords", "mellea_sc.stdlib.requirements"),
    ],
)
def test_a_name_that_a_package_inside_has_is_found_with_a_warning_that_says_where(
    package: str, name: str, room: str
) -> None:
    module = importlib.import_module(package)
    expected = getattr(importlib.import_module(room), name)
    with pytest.warns(DeprecationWarning, match=rf"import it from {re.escape(room)}$") as told:
        assert getattr(module, name) is expected
    assert [warning.filename for warning in told] == [__file__]
    with pytest.warns(DeprecationWarning, match=rf"import it from {re.escape(room)}$"):
        exec(f"from {package} import {name}")
    assert name not in module.__all__
    assert name not in dir(module)


def test_a_name_that_no_package_has_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        getattr(mellea_sc, "Nonsense")  # noqa: B009
    with pytest.raises(ImportError, match="cannot import name 'Nonsense'"):
        exec("from mellea_sc import Nonsense")


def documented() -> list[type | FunctionType]:
    """The public classes and functions, each once; the rest are names of types."""
    modules = [mellea_sc.testing, *map(importlib.import_module, PACKAGES)]
    values = dict.fromkeys(getattr(module, name) for module in modules for name in module.__all__)
    return [value for value in values if isinstance(value, (type, FunctionType))]


@pytest.mark.parametrize("value", documented(), ids=lambda value: value.__name__)
def test_every_public_class_function_and_method_is_documented(value: object) -> None:
    if not inspect.isclass(value):
        assert value.__doc__
        return
    assert vars(value).get("__doc__"), "it has only the docstring of its base class"
    for attribute, member in inspect.getmembers(value):
        module = getattr(member, "__module__", "") or ""
        called = inspect.isroutine(member) and module.startswith("mellea_sc")
        if not attribute.startswith("_") and (called or isinstance(member, property)):
            assert inspect.getdoc(member), attribute


@pytest.mark.parametrize("method", ["act", "chat", "instruct", "query", "transform", "validate"])
def test_a_blocking_half_has_the_parameters_and_the_name_of_its_own(method: str) -> None:
    session = mellea_sc.MelleaSession
    sync, asynchronous = getattr(session, method), getattr(session, f"a{method}")
    assert inspect.signature(sync) == inspect.signature(asynchronous)
    assert sync.__name__ == method
    assert sync.__qualname__ == f"Conversation.{method}"  # a session is one
    assert f"`a{method}`" in sync.__doc__
    assert not inspect.iscoroutinefunction(sync)


SHARED = {
    "aact": ActArguments,
    "ainstruct": InstructArguments,
    "achat": ConditionArguments,
    "aquery": QueryArguments,
    "atransform": QueryArguments,
    "stream": StreamArguments,
}


@pytest.mark.parametrize("method", SHARED)
def test_a_signature_shows_every_keyword_argument_with_its_default(method: str) -> None:
    shown = inspect.signature(getattr(mellea_sc.MelleaSession, method)).parameters
    assert set(SHARED[method].__annotations__) < set(shown)
    for name in SHARED[method].__annotations__:
        assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert shown[name].default is not inspect.Parameter.empty
        assert isinstance(shown[name].annotation, str)
    assert inspect.Parameter.VAR_KEYWORD not in {one.kind for one in shown.values()}


def test_keyword_arguments_are_shown_in_the_order_of_the_docstring() -> None:
    shown = [*inspect.signature(mellea_sc.stream_with_chunking).parameters]
    described = inspect.getdoc(mellea_sc.stream_with_chunking)
    assert described is not None
    assert shown == re.findall(r"^    (\w+): ", described.partition("Returns:")[0], re.MULTILINE)


@pytest.mark.anyio
@pytest.mark.parametrize("method", SHARED)
async def test_a_keyword_argument_that_is_not_shown_is_a_type_error(method: str) -> None:
    async with mellea_sc.start_session(backend=ScriptedBackend()) as m:
        ask = getattr(m, method)
        with pytest.raises(TypeError, match=rf"\.{method}\(\) got an unexpected .* 'tone'"):
            await ask("a", *["b"] * (method in ("aquery", "atransform")), tone="kind")


def imported_by(statement: str) -> set[str]:
    """The top-level packages that a statement imports, in a process of its own."""
    program = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import mellea_sc",
        "from mellea_sc import start_session",
        "from mellea_sc import stream_with_chunking, wait_for_all_mots, Requirement, Instruction",
        "from mellea_sc.backends import OpenAIBackend, OllamaBackend, LocalBackend",
        "from mellea_sc.stdlib import StreamChunkingResult, RacingStrategy, SentenceChunker",
        "from mellea_sc import LLMJudge, MustMatch, NoPII, NoSecrets, ValidJSON",
        "import mellea_sc.testing",
    ],
)
def test_importing_is_cheap(statement: str) -> None:
    assert not imported_by(statement) & HEAVY


@pytest.mark.parametrize(
    "statement",
    [
        "from mellea_sc import start_session, stream_with_chunking, Requirement, Instruction, limits",
        "from mellea_sc import backends, start_session as s; s(backend=backends.OpenAIBackend('m'))",
    ],
)
def test_no_event_loop_is_imported_before_one_runs(statement: str) -> None:
    assert not imported_by(statement) & {"asyncio", "trio"}


def test_importing_the_package_alone_imports_nothing_of_it() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import mellea_sc, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    ours = {name for name in loaded if name.startswith("mellea_sc")}
    assert ours == {"mellea_sc", "mellea_sc._lazy"}
    assert "anyio" not in loaded


def test_it_runs_from_a_zip_archive(tmp_path: Path) -> None:
    archive = shutil.make_archive(
        str(tmp_path / "app"), "zip", Path(mellea_sc.__file__).parents[1], "mellea_sc"
    )
    program = """
        from mellea_sc import *
        import mellea_sc.testing
        assert mellea_sc.__file__.startswith(sys.path[0]), mellea_sc.__file__
        assert not hasattr(mellea_sc, "no_such_name")
        with start_session(backend=mellea_sc.testing.ScriptedBackend("It is good.")) as m:
            print(m.instruct("q", requirements=[MaxWords(9)]).value)
    """
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {archive!r})" + textwrap.dedent(program),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "It is good.\n", "")
