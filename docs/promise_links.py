"""The links from docs/promises.md to the tests: ``python docs/promise_links.py`` mends them.

A test keeps its name when it moves to another file, so a link is found again by the name.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
PAGE = DOCS / "promises.md"
TESTS = DOCS.parent / "tests"

LINK = re.compile(r"^- \[`(?P<name>test_\w+)`\]\((?P<path>[^)]*)\)$", re.MULTILINE)
PROMISE = re.compile(r"^### (?P<number>\d+\.\d+) ", re.MULTILINE)


def tests_by_name() -> dict[str, list[str]]:
    """For each test the files that have one of that name, as links from docs/ say them."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        link = "../" + path.relative_to(DOCS.parent).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.setdefault(node.name, []).append(link)
    return found


def tests_by_promise(page: str) -> dict[str, list[str]]:
    """For each promise, by its number, the names of the tests that the page links to."""
    parts = PROMISE.split(page)[1:]
    return {
        number: [link["name"] for link in LINK.finditer(text)]
        for number, text in zip(parts[::2], parts[1::2], strict=True)
    }


def mended(page: str) -> str:
    """The page with every link leading to the file that has the test now.

    Raises:
        LookupError: there is no such test any more, or more than one and the link is to none of them.
    """
    files = tests_by_name()

    def mend(link: re.Match[str]) -> str:
        name, path = link["name"], link["path"]
        there = files.get(name, [])
        if path not in there:
            if len(there) != 1:
                raise LookupError(f"{name} is in {there or 'no file'}: link to one by hand")
            [path] = there
        return f"- [`{name}`]({path})"

    return LINK.sub(mend, page)


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    after = mended(before)
    PAGE.write_text(after, encoding="utf-8")
    sys.stdout.write("mended\n" if after != before else "nothing to mend\n")
