"""Which backend a session gets."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from mellea_sc.backends.local import LocalBackend
from mellea_sc.backends.ollama import DEFAULT_MODEL, OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.backends.select import make_backend
from mellea_sc.core.errors import InvalidOption


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MELLEA_SC_BACKEND", "MELLEA_SC_MODEL", "OLLAMA_HOST", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("found", "kind"), [(True, LocalBackend), (False, OllamaBackend)])
def test_without_a_name_it_is_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, found: bool, kind: type
) -> None:
    spec = importlib.util.find_spec("json") if found else None
    monkeypatch.setattr("importlib.util.find_spec", lambda _: spec)
    assert type(make_backend()) is kind


def test_the_environment_names_backend_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELLEA_SC_BACKEND", "openai")
    monkeypatch.setenv("MELLEA_SC_MODEL", "gpt")
    backend = make_backend(base_url="http://h")
    assert type(backend) is OpenAIBackend
    assert backend.model_id == "gpt"


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELLEA_SC_BACKEND", "openai")
    monkeypatch.setenv("MELLEA_SC_MODEL", "gpt")
    backend = make_backend("ollama", "granite")
    assert type(backend) is OllamaBackend
    assert backend.model_id == "granite"


def test_ollama_has_a_model_to_fall_back_on() -> None:
    assert make_backend("ollama").model_id == DEFAULT_MODEL


def test_openai_has_none() -> None:
    with pytest.raises(InvalidOption, match="MELLEA_SC_MODEL"):
        make_backend("openai")


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidOption, match=r"'watson'.*local, ollama, openai"):
        make_backend("watson")


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("local", {"base_url": "http://h"}, "base_url"),
        ("local", {"api_key": "sk-k3y"}, "api_key"),
        ("ollama", {"strict": True}, "strict"),
        ("openai", {"organization": "sk-k3y"}, "organization"),
    ],
)
def test_what_a_backend_has_no_use_for_is_refused(
    name: str, arguments: dict[str, object], match: str
) -> None:
    with pytest.raises(InvalidOption, match=match) as caught:
        make_backend(name, "m", **arguments)  # type: ignore[arg-type]
    assert "k3y" not in str(caught.value)


def test_choosing_a_backend_imports_no_http_client() -> None:
    program = (
        "import sys; from mellea_sc.backends.select import make_backend; make_backend('ollama'); "
        "make_backend('openai', 'm'); print(*{'httpx', 'ssl'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_every_name_of_the_package_can_be_imported_from_it() -> None:
    import mellea_sc.backends

    for name in mellea_sc.backends.__all__:
        assert getattr(mellea_sc.backends, name).__name__.rpartition(".")[2] == name
    with pytest.raises(AttributeError, match="watson"):
        _ = mellea_sc.backends.watson  # type: ignore[attr-defined]
