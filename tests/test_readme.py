"""The README's programs run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from mellea_sc.testing.server import Answer, ModelServer, RecordedRequest

README = (Path(__file__).parent.parent / "README.md").read_text()

VOLCANO = (
    "When a volcano erupts, it's a natural process that involves magma rising to the surface.",
    " The magma is created when magma, which is molten rock, rises to the surface through cracks",
    " in the Earth's crust.",
    " The eruption is a violent process that can release a massive amount of gas",
    " and ash into the air.",
)


@attrs.frozen
class Program:
    """A block of Python, and the block of text that says what it prints."""

    text: str
    prints: str | None


def programs() -> list[Program]:
    """The blocks of Python, in order; the output follows a program that is marked to have one."""
    found: list[Program] = []
    for block in re.finditer(
        r"(?P<marked><!-- output -->\n)?^```python\n(?P<text>.*?)^```",
        README,
        re.DOTALL | re.MULTILINE,
    ):
        output = re.compile(r"^```text\n(.*?)^```", re.DOTALL | re.MULTILINE).search(
            README, block.end()
        )
        found.append(Program(block["text"], output[1] if block["marked"] and output else None))
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    def answer(request: RecordedRequest) -> Answer:
        about_volcanoes = any("volcano" in message.content for message in request.messages)
        return Answer(
            VOLCANO if about_volcanoes else ("It is ", "good. ", "It is short."), delay=0.01
        )

    with ModelServer.in_thread(answer) as server:
        yield server


def test_the_readme_has_programs() -> None:
    assert programs()


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.text.splitlines()[-1])
def test_a_program_of_the_readme_runs(program: Program, server: ModelServer) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.text],
        env={
            **os.environ,
            "MELLEA_SC_BACKEND": "openai",
            "MELLEA_SC_MODEL": "test-model",
            "OPENAI_BASE_URL": server.openai_url,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if program.prints is not None:
        assert done.stdout == program.prints


@pytest.mark.model
def test_the_first_program_prints_on_the_embedded_model_what_the_readme_says() -> None:
    pytest.importorskip("xllamacpp")
    first = programs()[0]
    done = subprocess.run(
        [sys.executable, "-c", first.text],
        env={**os.environ, "MELLEA_SC_BACKEND": "local", "MELLEA_SC_MODEL": ""},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    # other processors round differently, so the words may differ; what was promised may not
    released = [line for line in done.stdout.splitlines() if line.startswith("released: ")]
    assert released
    assert not any(re.search(r"(?i)\bgas\b", line) for line in released)


def test_the_readme_shows_the_commands_that_ci_runs() -> None:
    for marker in ("main job", "tests"):
        assert re.search(rf"<!-- the {marker} -->\n```sh\n[^\n]+\n```", README)


def test_the_readme_shows_what_was_measured_last() -> None:
    shown = README.split("<!-- measured -->\n")[1].split("<!-- /measured -->")[0]
    summary = Path(__file__).parent.parent / "benchmarks" / "SUMMARY.md"
    assert shown.strip() == summary.read_text().strip()
