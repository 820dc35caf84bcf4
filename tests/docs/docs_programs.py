"""Runs the programs of one page of docs/, or of the README, in order: ``python tests/docs/docs_programs.py PAGE``.

The blocks ```` ```python ```` of a page are one program after another in one module, as in a notebook: they
may await, and use the names of those before. Instead of a model a server on loopback answers. Comments in the
page say more about the block that follows or was before:

    <!-- answers: ["One.", "Two."] -->    what the server says to the next one, in turn, the last again and again
    <!-- needs: NAME -->                  the next program, or check, is for who has that package
    <!-- output -->                       the next block of text is what the last program prints
    <!-- check: … -->                     statements that are run after the last program
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType

import anyio
import attrs

from mellea_sc.testing.server import Answer, ModelServer, RecordedRequest

PART = re.compile(
    r"^<!-- (?P<note>answers|needs|check): ?(?P<said>.*?) ?-->$"
    r"|^(?P<output><!-- output -->\n+)?```(?P<kind>python|text)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)

DEFAULT_ANSWERS = ("It is good. It is short.",)


@attrs.frozen
class Part:
    """Something of a page that is run, or says how.

    Args:
        kind: ``"python"``, ``"output"``, or the name of a note.
        text: The block's text, or what the note says.
        line: Where it begins.
    """

    kind: str
    text: str
    line: int


def parts_of(page: str) -> Iterator[Part]:
    """The parts of a page, in order; a block of text that is no output is none."""
    for found in PART.finditer(page):
        line = page.count("\n", 0, found.start()) + 1
        if note := found["note"]:
            yield Part(note, found["said"], line)
        elif found["kind"] == "python":
            yield Part("python", found["text"], line)
        elif found["output"]:
            yield Part("output", found["text"], line)


class Script:
    """What the server says: judges say yes, others what the page wants to hear."""

    def __init__(self) -> None:
        self.answers = list(DEFAULT_ANSWERS)

    def __call__(self, request: RecordedRequest) -> Answer:
        """Answer a request."""
        if '"enum": ["yes", "no"]' in json.dumps(request.json):
            return Answer('{"answer": "yes", "reason": "it does"}')
        said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Answer(tuple(re.findall(r"\S+\s*|\s+", said)))


class Page:
    """One page, while it runs."""

    def __init__(self, path: Path, script: Script) -> None:
        self._path = path
        self._script = script
        self._names: dict[str, object] = {"__name__": "__main__"}
        self._printed = ""
        self._missing: str | None = None

    def run(self) -> int:
        """Run all of it; how many programs that were."""
        programs = 0
        for part in parts_of(self._path.read_text(encoding="utf-8")):
            if part.kind == "answers":
                self._script.answers = json.loads(part.text)
            elif part.kind == "needs":
                self._missing = None if importlib.util.find_spec(part.text) else part.text
            elif part.kind == "python":
                if self._missing is None:
                    printed = io.StringIO()
                    with contextlib.redirect_stdout(printed):
                        self._execute(part)
                    self._printed = printed.getvalue()
                    programs += 1
                self._missing = None
                self._script.answers = list(DEFAULT_ANSWERS)
            elif part.kind == "check":
                if self._missing is None:
                    self._execute(part)
                self._missing = None
            else:
                assert self._printed == part.text, f"line {part.line}: it prints\n{self._printed}"
        return programs

    def _execute(self, part: Part) -> None:
        where = f"{self._path}:{part.line}"
        code: CodeType = compile(
            part.text.rstrip() + "\n", where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )
        if not code.co_flags & inspect.CO_COROUTINE:
            exec(code, self._names)
            return
        awaiting = FunctionType(code, self._names)

        async def main() -> None:
            await awaiting()

        anyio.run(main)


def environment(server: ModelServer) -> Mapping[str, str]:
    """What leads every backend that a program names to the server."""
    return {
        "MELLEA_SC_BACKEND": "openai",
        "MELLEA_SC_MODEL": "test-model",
        "OPENAI_BASE_URL": server.openai_url,
        "OPENAI_API_KEY": "none",
        "OLLAMA_HOST": server.ollama_url,
    }


def main(path: Path) -> int:
    """Run a page; how many programs that were."""
    script = Script()
    with ModelServer.in_thread(script) as server:
        os.environ.update(environment(server))
        return Page(path, script).run()


if __name__ == "__main__":
    sys.stdout.write(f"{main(Path(sys.argv[1]))}\n")
