"""Programs of the README and the guide, as they are printed, on servers that nobody here wrote."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import KEY, Running

HERE = Path(__file__).parent.parent.parent
PAGES = [
    "README.md",
    *(f"docs/guide/{it}.md" for it in ("first-stream", "sessions", "conversations")),
]
PROGRAMS = [
    program
    for page in PAGES
    for program in re.findall(
        r"^```python\n(.*?)^```",
        (HERE / page).read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
]
ASKING = [text for text in PROGRAMS if "backend=" not in text]
"""The others bring a backend of their own."""


@pytest.mark.parametrize("program", ASKING, ids=range(len(ASKING)))
def test_a_program_of_the_documentation_runs(program: str, server: Running) -> None:
    if "format=" in program and not server.can("schema"):
        pytest.skip("its answer need not fit the format, and the program is told so")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={
            **os.environ,
            "MELLEA_SC_BACKEND": "openai",
            "MELLEA_SC_MODEL": server.model,
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": KEY,
        },
        capture_output=True,
        text=True,
        timeout=600 if server.server.slow else 100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_the_documentation_has_programs_that_ask() -> None:
    assert len(ASKING) >= 6
