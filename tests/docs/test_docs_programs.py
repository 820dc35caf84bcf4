"""The programs of the documentation run as they are printed; how, docs_programs.py says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DOCS = Path(__file__).parents[2] / "docs"
RUN_ELSEWHERE = {"guide/testing.md", "guide/notebooks.md"}  # under pytest, and in a kernel

PAGES = sorted(
    page
    for page in (path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    if not page.startswith("_build/")
    and page not in RUN_ELSEWHERE
    and "```python\n" in (DOCS / page).read_text(encoding="utf-8")
)


def run(page: Path, where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "docs_programs.py"), str(page)],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.parametrize("page", PAGES)
def test_the_programs_of_a_page_run(page: str, tmp_path: Path) -> None:
    done = run(DOCS / page, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    text = (DOCS / page).read_text(encoding="utf-8")
    programs = text.count("```python\n")
    if "<!-- needs: " in text:  # perhaps not all of them here
        assert 0 < int(done.stdout) <= programs
    else:
        assert int(done.stdout) == programs


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```python\nprint(undefined)\n```\n", "NameError"),
        ("```python\nawait undefined\n```\n", "NameError"),
        ("```python\nprint(1)\n```\n\n<!-- output -->\n```text\n2\n```\n", "it prints"),
        ("```python\nx = 1\n```\n\n<!-- check: assert x == 2 -->\n", "AssertionError"),
        (
            """<!-- answers: ["No."] -->

```python
from mellea_sc import start_session

with start_session() as m:
    assert str(m.chat("Say yes.")) == "Yes."
```
""",
            "AssertionError",
        ),
    ],
)
def test_a_program_that_does_not_do_what_its_page_says_is_found(
    page: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "page.md").write_text(page)
    done = run(tmp_path / "page.md", tmp_path)
    assert done.returncode != 0
    assert said in done.stderr
