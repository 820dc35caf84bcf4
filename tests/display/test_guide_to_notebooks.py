"""The cells of the guide to notebooks run as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from kernels import PATIENCE

from mellea_sc.display import INTERVAL, SHOWN

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "notebooks.md"

NO_SERVER = """
import mellea_sc
from mellea_sc.testing import ScriptedBackend
_start = mellea_sc.start_session
def start_session(name):
    assert name == "ollama"
    return _start(backend=ScriptedBackend(lambda _: "It is <so>. And so is that."))
mellea_sc.start_session = start_session
"""
"""A first cell, for there is no model here."""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[nbformat.NotebookNode]:
    """The guide's cells, with what they have put out."""
    place = tmp_path_factory.mktemp("guide")
    cells = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in (NO_SERVER, *cells)]
    )
    nbformat.write(book, place / "guide.ipynb")
    # in a process of its own: the client's event loop is not for the loops of tests
    program = f"""
import nbclient, nbformat
book = nbformat.read("guide.ipynb", 4)
nbclient.NotebookClient(book, timeout={PATIENCE:g}, kernel_name="python3").execute()
nbformat.write(book, "guide.ipynb")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert (place / "trace.html").read_text().count("<svg") == 1
    return list(nbformat.read(place / "guide.ipynb", 4).cells[1:])


def test_every_cell_of_the_guide_runs_and_shows_what_it_says(
    cells: list[nbformat.NotebookNode],
) -> None:
    [sync, several, end, stream, thunk, trace, _] = cells
    assert "It is &lt;so&gt;." in sync.outputs[0]["data"]["text/html"]
    assert several.outputs[0]["data"]["text/plain"].count("It is <so>.") == 3
    assert end.outputs == []
    assert "It is &lt;so&gt;. And so is that." in stream.outputs[0]["data"]["text/html"]
    assert "at most 120 words" in stream.outputs[0]["data"]["text/html"]
    assert "It is &lt;so&gt;." in thunk.outputs[0]["data"]["text/html"]
    assert "<svg" in trace.outputs[0]["data"]["text/html"]


def test_a_live_display_leaves_one_output(cells: list[nbformat.NotebookNode]) -> None:
    assert [len(cell.outputs) for cell in cells[3:5]] == [1, 1]


def test_the_numbers_of_the_guide() -> None:
    text = GUIDE.read_text()
    assert INTERVAL == 0.1
    assert "ten times a second" in text
    assert f"{SHOWN:,} characters" in text
