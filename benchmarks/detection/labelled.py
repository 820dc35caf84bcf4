"""The labelled sets, ``lines.tsv`` and ``later.tsv``, and how what is found in it is counted."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from mellea_sc import NoPII, NoSecrets
from mellea_sc.stdlib.requirements.scanned import Scanner

__all__ = ["Counts", "Line", "count", "cut_at_random", "is_held_out", "lines", "spans_of"]

_MARK: Final = re.compile(r"⟦(\w+)\|(.*?)⟧", re.DOTALL)
_CHARACTER: Final = re.compile(r"\\u([0-9a-f]{4})")


@attrs.frozen
class Line:
    """A line of the set.

    Args:
        domain: Prose, a table, a log, code or Markdown.
        script: That of the words.
        text: What a model says.
        things: Beginning, end and kind of what is to be found.
    """

    domain: str
    script: str
    text: str
    things: tuple[tuple[int, int, str], ...]


def lines(name: str = "lines.tsv") -> list[Line]:
    """The set, or ``later.tsv``: lines that were written when the rules were done."""
    said = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return [_line(*one.split("\t", 2)) for one in said if not one.startswith("#")]


def _line(domain: str, script: str, said: str) -> Line:
    said = said.replace("¦", "").replace("⏎", "\n")
    said = _CHARACTER.sub(lambda match: chr(int(match[1], 16)), said)
    text, things, at = "", list[tuple[int, int, str]](), 0
    for mark in _MARK.finditer(said):
        text += said[at : mark.start()]
        things.append((len(text), len(text) + len(mark[2]), mark[1]))
        text += mark[2]
        at = mark.end()
    return Line(domain, script, text + said[at:], tuple(things))


def is_held_out(number: int) -> bool:
    """Whether a line was kept back while the rules were made: every third."""
    return number % 3 == 2


@attrs.define
class Counts:
    """What was to be found and was, and what was found and was to be."""

    things: int = 0
    found: int = 0
    said: int = 0
    right: int = 0

    @property
    def recall(self) -> float:
        return self.found / self.things if self.things else 1.0

    @property
    def precision(self) -> float:
        return self.right / self.said if self.said else 1.0

    def add(self, line: Line, spans: Sequence[tuple[int, int]]) -> None:
        """Count a line: a thing is found if all of it would be taken away."""
        self.things += len(line.things)
        self.found += sum(_budget_scope(thing, spans) for thing in line.things)
        self.said += len(spans)
        self.right += sum(
            any(first < end and start < last for start, end, _ in line.things)
            for first, last in spans
        )


def _budget_scope(thing: tuple[int, int, str], spans: Iterable[tuple[int, int]]) -> bool:
    hidden = {place for first, last in spans for place in range(first, last)}
    return hidden.issuperset(range(thing[0], thing[1]))


_WATCHES: Final = tuple(one().chunking for one in (NoPII, NoSecrets))


def spans_of(deltas: Sequence[str]) -> list[tuple[int, int]]:
    """What both requirements find in a text that comes in some deltas; one that goes on is one."""
    spans: list[tuple[int, int]] = []
    for watch in _WATCHES:
        assert isinstance(watch, Scanner)
        fresh, at, goes_on = watch.fresh(), 0, False
        for piece in [*(piece for delta in deltas for piece in fresh.feed(delta)), *fresh.flush()]:
            end = at + len(piece)
            if piece.verdict.success == "fail":
                if goes_on and piece.verdict.replacement == "":
                    spans[-1] = spans[-1][0], end
                else:
                    spans.append((at, end))
            at, goes_on = end, piece.verdict.success == "fail"
    return sorted(spans)


def cut_at_random(text: str, dice: random.Random) -> list[str]:
    """A text in deltas."""
    places = sorted(dice.randrange(len(text)) for _ in range(dice.randint(0, len(text))))
    ends = [0, *places, len(text)]
    return [text[first:last] for first, last in itertools.pairwise(ends)]


def count(numbered: Iterable[tuple[int, Line]]) -> Iterator[tuple[Line, list[tuple[int, int]]]]:
    """The lines with what is found in them; streamed in random cuts it is the same.

    Raises:
        AssertionError: it is not.
    """
    for number, line in numbered:
        spans = spans_of([line.text])
        dice = random.Random(number)
        for _ in range(3):
            deltas = cut_at_random(line.text, dice)
            if spans_of(deltas) != spans:
                raise AssertionError(f"line {number}: {deltas} gives something else than the whole")
        yield line, spans
