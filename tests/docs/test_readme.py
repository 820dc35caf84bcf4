"""The README's programs run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs_programs import parts_of
from test_docs_programs import run

PAGE = Path(__file__).parents[2] / "README.md"
README = PAGE.read_text()

PARTS = list(parts_of(README))


def test_the_readme_has_a_program_and_says_what_it_prints() -> None:
    assert [part.kind for part in PARTS if part.kind != "answers"] == ["python", "output"]


def test_the_programs_of_the_readme_run(tmp_path: Path) -> None:
    done = run(PAGE, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == README.count("```python\n")


@pytest.mark.model
def test_the_first_program_prints_on_the_embedded_model_what_the_readme_says() -> None:
    pytest.importorskip("xllamacpp")
    first = next(part for part in PARTS if part.kind == "python")
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
    summary = PAGE.parent / "benchmarks" / "SUMMARY.md"
    assert shown.strip() == summary.read_text().strip()
