"""The harness: every wording for every item, one answer at a time, at temperature 0."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio

from benchmarks.prompting.items import BEGINNINGS, QUESTIONS, WRITINGS, Item, has_met, is_parroted
from benchmarks.prompting.report import write_report
from benchmarks.prompting.wordings import (
    ASKING,
    GOING_ON,
    REPAIRING,
    SYSTEMS,
    TURNING,
    Messages,
)
from benchmarks.run import machine
from mellea_sc import Backend, Instruction, ModelOption
from mellea_sc.backends.local import LocalBackend
from mellea_sc.core.backend import ChatMessage, GenerationRequest

__all__ = ["PARTS", "main", "measure"]

MAX_TOKENS = 60
REASONS = {
    "at most 2 sentences": "3 sentences, and at most 2 may be",
    "at most 20 words": "26 words, and at most 20 may be",
    "no exclamation marks": "there is a match of '!'",
    "no lists": "there is a list",
    "answer in one full sentence": "it is not one full sentence",
}
"""Why an answer may have been rejected, as ready-made requirements say it."""
REJECTED = {
    "at most 2 sentences": "{}! {} Is there anything else? I can help you with that.",
    "at most 20 words": "{} And there is so much more that one could say about this that I do not know where to begin or end.",
    "no exclamation marks": "{}! Wow!",
    "no lists": "- {}\n- something else",
    "answer in one full sentence": "{}. Yes. Truly.",
}
"""Answers that were."""
ABOUT_ITSELF = re.compile(
    r"\b(?:sorry|apolog\w*|reject\w*|mistakes?|previous|earlier|(?:this|the|your|my|an?) (?:answer|response|text)"
    r"|avoid\w*|certainly|here is|here's|continu\w+ (?:your|the|this|my)|go on|next sentence)\b",
    re.IGNORECASE,
)
"""An answer that speaks of answers."""
WITH_REASON = [item for item in QUESTIONS if item.requirements[0] in REASONS][:24]


Done = Callable[[str, list[dict[str, Any]]], None]


async def answer(backend: Backend, messages: Messages, tokens: int = MAX_TOKENS) -> str:
    """What the model says."""
    options = {ModelOption.TEMPERATURE: 0.0, ModelOption.MAX_NEW_TOKENS: tokens}
    async with backend.open(GenerationRequest(tuple(messages), options)) as deltas:
        return "".join([delta.text async for delta in deltas]).strip()


def _asked(item: Item) -> str:
    return Instruction(item.question, item.requirements).format_for_llm()


async def asking(backend: Backend) -> AsyncIterator[dict[str, Any]]:
    """Questions with requirements."""
    for item in QUESTIONS:
        for name, wording in ASKING.items():
            said = await answer(backend, wording(item.question, item.requirements))
            yield _row(name, item, said, item.is_right(said))


async def writing(backend: Backend) -> AsyncIterator[dict[str, Any]]:
    """Something of two sentences, of which there may be three."""
    for item in WRITINGS:
        for name, wording in ASKING.items():
            said = await answer(backend, wording(item.question, item.requirements), 100)
            yield _row(name, item, said, item.is_right(said))


async def system(backend: Backend) -> AsyncIterator[dict[str, Any]]:
    """Both, as the library says them, below other system prompts."""
    for item in (*QUESTIONS[::2], *WRITINGS):
        for name, prompt in SYSTEMS.items():
            messages = [ChatMessage("system", prompt), ChatMessage("user", _asked(item))]
            said = await answer(backend, messages, 100)
            yield _row(name, item, said, item.is_right(said))


async def repairing(backend: Backend) -> AsyncIterator[dict[str, Any]]:
    """The same question again, with the reasons why an answer was rejected."""
    for item in WITH_REASON:
        why = [REASONS[item.requirements[0]]]
        for name, wording in REPAIRING.items():
            said = await answer(backend, wording(_asked(item), why))
            yield _row(name, item, said, _is_repaired(item, why, said))


async def turning(backend: Backend) -> AsyncIterator[dict[str, Any]]:
    """The reasons as the next thing that the user says."""
    for item in WITH_REASON:
        why = [REASONS[item.requirements[0]]]
        right = await answer(backend, ASKING["no requirement is said"](item.question, ()))
        before = REJECTED[item.requirements[0]].format(right, right)
        for name, wording in TURNING.items():
            said = await answer(backend, wording(_asked(item), before, why))
            yield _row(name, item, said, _is_repaired(item, why, said))


def _is_repaired(item: Item, why: Sequence[str], said: str) -> bool:
    return (
        item.is_right(said) and not is_parroted(tuple(why), said) and not ABOUT_ITSELF.search(said)
    )


async def going_on(backend: Backend) -> AsyncIterator[dict[str, Any]]:
    """The rest of an answer: after its first sentence, and from the middle of a sentence."""
    for question in BEGINNINGS:
        whole = await answer(backend, ASKING["no requirement is said"](question, ()))
        first = re.match(r".*?[.!?](?=\s)", whole, re.DOTALL)
        words = whole.split()
        begins = (first[0] if first else whole, " ".join(words[:10]))
        for begun, where in zip(begins, ("after a sentence", "in a sentence"), strict=True):
            for name, wording in GOING_ON.items():
                said = await answer(backend, wording(question, begun), 40)
                row = _row(name, Item(question, "", ()), said, goes_on(begun, said))
                rest = said.removeprefix(begun)
                yield row | {"begun": begun, "where": where, "rest": goes_on(begun, rest)}


def goes_on(begun: str, said: str) -> bool:
    """Whether a text goes on from its beginning: with something new, and nothing about itself."""
    words = _words(said)
    runs = {tuple(_words(begun)[at : at + 5]) for at in range(len(_words(begun)) - 4)}
    repeats = any(tuple(words[at : at + 5]) in runs for at in range(len(words)))
    in_a_sentence = not re.search(r"[.!?:][\"')]?$", begun.rstrip())
    starts_well = not in_a_sentence or not said[:1].isupper()
    return len(words) >= 4 and not repeats and starts_well and not ABOUT_ITSELF.search(said)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _row(name: str, item: Item, said: str, right: bool) -> dict[str, Any]:
    return {
        "wording": name,
        "question": item.question,
        "requirements": list(item.requirements),
        "right": right,
        "met": has_met(item.requirements, said),
        "said": said,
    }


PARTS = {
    "asking": asking,
    "writing": writing,
    "system": system,
    "repairing": repairing,
    "turning": turning,
    "going on": going_on,
}


async def measure(
    backend: Backend, parts: Sequence[str] = tuple(PARTS), done: Done = lambda _name, _rows: None
) -> None:
    """All answers, part by part."""
    async with backend.connected() as connected:
        for name in parts:
            begun = time.perf_counter()
            rows: list[dict[str, Any]] = []
            async for row in PARTS[name](connected):
                rows.append(row)
                if len(rows) % 50 == 0:
                    print(f"{name}: {len(rows)}, {time.perf_counter() - begun:.0f} s", flush=True)
            done(name, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.prompting", description=__doc__)
    add = parser.add_argument
    add("--parts", help=f"of {', '.join(PARTS)}, with commas; what is left out stays as it was")
    add("--out", type=Path, default=Path(__file__).parents[1], help="where the results go")
    add("--report", action="store_true", help="write the page from results that are there")
    given = parser.parse_args(arguments)
    path = given.out / "prompting.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if not given.report:
        parts = given.parts.split(",") if given.parts else list(PARTS)
        backend = LocalBackend()
        results |= {
            "machine": machine(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": backend.model_id,
            "tokens": MAX_TOKENS,
        }

        def done(name: str, rows: list[dict[str, Any]]) -> None:
            results[name] = rows
            path.write_text(_compact(results))

        anyio.run(measure, backend, parts, done)
    write_report(results, given.out)
    print(f"written: {given.out / 'PROMPTING.md'}")


def _compact(results: dict[str, Any]) -> str:
    """JSON with a line for each answer."""
    parts = [
        f"{json.dumps(name)}: "
        + (
            "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in value) + "\n]"
            if isinstance(value, list)
            else json.dumps(value)
        )
        for name, value in results.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"
