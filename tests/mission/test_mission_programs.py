"""The mission's programs run as they stand, on both event loops, against both protocols and a real model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mellea_sc.testing.server import Answer, ModelServer, RecordedRequest

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
STORY = (
    "A robot ",
    "woke up. ",
    "It began ",
    "to cook! ",
    '"Is it ',
    'good?" she asked. ',
    "The end.",
)

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    def answer(_: RecordedRequest) -> Answer:
        return Answer(STORY, delay=0.002)

    with ModelServer.in_thread(answer) as server:
        yield server


@pytest.fixture(params=["ollama", "openai"])
def environment(request: pytest.FixtureRequest, server: ModelServer) -> Mapping[str, str]:
    return {
        "MELLEA_SC_BACKEND": request.param,
        "MELLEA_SC_MODEL": "test-model",
        "OLLAMA_HOST": server.ollama_url,
        "OPENAI_BASE_URL": server.openai_url,
        "OPENAI_API_KEY": "not-a-key",
    }


def as_trio(program: Path) -> str:
    """The program under trio, where it uses nothing of asyncio but ``run``."""
    text = program.read_text()
    if re.search(r"asyncio\.(?!run\b)", text):
        pytest.skip("uses more of asyncio than run()")
    text = text.replace("import asyncio", "import trio")
    return re.sub(r"asyncio\.run\((\w+)\(\)\)", r"trio.run(\1)", text)


def run(program: Path, loop: str, environment: Mapping[str, str]) -> str:
    text = program.read_text() if loop == "asyncio" else as_trio(program)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:unclosed session:ResourceWarning",
            "-c",
            text,
        ],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


EXPECTED = {
    "01_async": "".join(STORY) + "\n",
    "02_parallel": "False\n" + ("".join(STORY) + "\n") * 3,
    "03_wait_for_all": ("".join(STORY) + "\n") * 3,
    "04_streaming": "".join(STORY) + "\n",
    "05_chat": "".join(STORY) + "\n",
    "06_chunk_validation": (
        "  chunk[0]: 'A robot woke up.'\n"
        "  chunk[1]: 'It began to cook!'\n"
        "  chunk[2]: '\"Is it good?\"'\n"
        "  FAIL at chunk 3: [PartialValidationResult(success='fail', reason='Too many sentences', "
        "score=None)]\n"
        "  completed: success=False\n"
        "completed=False, failures=1\n"
    ),
    "07_chunk_astream": (
        'A robot woke up.\nIt began to cook!\n"Is it good?"\nshe asked.\nThe end.\n'
    ),
}


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_of_the_mission_runs_as_it_stands(
    program: Path, loop: str, environment: Mapping[str, str]
) -> None:
    assert run(program, loop, environment) == EXPECTED[program.stem]


@pytest.mark.model
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_of_the_mission_runs_on_the_embedded_model(program: Path, loop: str) -> None:
    pytest.importorskip("xllamacpp")
    printed = run(program, loop, {"MELLEA_SC_BACKEND": "local", "MELLEA_SC_MODEL": ""})
    assert printed.strip()
