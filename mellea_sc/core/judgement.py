r"""Parses the answer of a judge: a clear verdict, or a ``ValueError``.

Models give their verdicts in a few ways. These are recognised::

    {"answer": "yes", "reason": …}     JSON, alone, in a fence or with prose around
    **No**, because …                  at the beginning
    … Final answer: no.                introduced as an answer, a verdict, \boxed{}, …
    … So, yes.                         as the last sentence

The content of a ``<think>`` part is skipped, and so is reasoning before a verdict that is introduced as one. If an
answer gives several verdicts, they must agree. Nothing is guessed: "Yes and no", "Yes, it does not meet it" and a
JSON object with a duplicate key are unclear.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final, cast

_NAMES: Final = "think|thinking|thought|reasoning|reflection"
_THINKING_ENDS: Final = re.compile(rf"</(?:{_NAMES})>", re.IGNORECASE)
_THINKING_BEGINS: Final = re.compile(rf"<(?:{_NAMES})>", re.IGNORECASE)
_FENCE: Final = re.compile(r"```[A-Za-z]*")
_OBJECT: Final = re.compile(r'\{\s*["}]')
_MARKDOWN: Final = re.compile(r"[*_`#~]+")
_I: Final = re.IGNORECASE


def _ended_or(words: str) -> str:
    """A pattern for what may follow a verdict: its end or one of the words; so not "yes or", "yes/", "no problem"."""
    return rf"\b(?!\.\s*\d|-\w)(?=[^\S\n]*(?:$|\n|[^\w\s/?|&+])|\s+(?:{words})\b)"


_WHY: Final = "because|since|as|due"
_BEGINS_WITH: Final = re.compile(
    r"[^\w\[\]{}]*(yes|no)"
    + _ended_or(f"{_WHY}|given|based|not|it|its|the|this|that|these|there|they|he|she|i"),
    _I,
)
_CALLED: Final = re.compile(
    r"(?:\b(?:answer|verdict|judge?ment|conclusion|decision|result|assessment)\s*"
    r"(?:is\b\s*:?|would be\b|[:=\u2192]|[-\u2013\u2014]+>?)\s*[\"'\u201c\u2018(]*"
    rf"|\\boxed\{{(?:\\text\{{)?\s*)(yes|no){_ended_or(_WHY)}",
    _I,
)
_CONCLUDES: Final = re.compile(
    r"\W*(?:so|therefore|thus|hence|overall|in short|in conclusion|finally|i(?:'d| would)? say|i conclude)\b"
    r"[\s,:]*(?:the answer is\s+)?(yes|no)[^\w?]*",
    _I,
)
_LAST: Final = re.compile(r"[^\w\[\]{}]*(yes|no)[^\w?\[\]{}]*", _I)
_SENTENCE_ENDS: Final = re.compile(r"(?<=[.!?:])\s+|\n")
_SENTENCES: Final = re.compile(r".*[.!?\n]", re.DOTALL)
_WORD: Final = re.compile(r"\w")
_ALONE: Final = re.compile(r"(?<![\w\"'\u201c\u2018-])(yes|no)(?=\s*(?:$|[.,;:!?)]))", _I)
_HEDGE: Final = re.compile(
    r"\W*(?:if|unless|except|mostly|partly|partially|somewhat|sort of|kind of|in part|to some extent|maybe"
    r"|perhaps|possibly|not (?:really|entirely|quite|fully|completely|always|exactly))\b",
    _I,
)
_MEETS_NOT: Final = re.compile(
    r"(?:\b(?:not|cannot|fails? to)|n['\u2019]t)\s+(?:\w+\s+)?(?:meet|satisfy|fulfill?|comply)\b",
    _I,
)
_MEETS: Final = re.compile(
    r"\b(?:it|this|that|text|answer|response|output)\s+(?:\w+ly\s+|does\s+)?"
    r"(?:meets?|satisf(?:y|ies)|fulfill?s?|compl(?:y|ies) with)\s+(?:(?:the|this|all|every)\s+)?"
    r"(?:it\b|requirement|criteri|condition)",
    _I,
)


def default_output_to_bool(answer: str) -> bool:
    """Parse a judge's answer: yes or no at its beginning, in its last sentence, introduced as a verdict, or in JSON.

    Raises:
        ValueError: it is neither a clear yes nor a clear no.
    """
    return read_judgement(answer)[0]


def read_judgement(answer: str) -> tuple[bool, str | None]:
    """Parse a judge's answer: whether it is yes, and the reason that it gives.

    Raises:
        ValueError: it is neither a clear yes nor a clear no.
    """
    objects, around = objects_in(answer)
    prose = _Prose(_MARKDOWN.sub("", around))
    verdicts = [_verdict_of(one["answer"]) for one in objects if "answer" in one]
    if verdicts:
        said = _only(verdicts)
        if prose.opposes(said):
            raise ValueError("the object says one thing, and the prose around it the other")
        reasons = [one.get("reason") for one in objects if "answer" in one]
        reason = reasons[-1]
        return said == "yes", reason if isinstance(reason, str) and reason else None
    said, reason = prose.verdict()
    return said == "yes", reason


def objects_in(answer: str) -> tuple[Sequence[dict[str, object]], str]:
    """The JSON objects in an answer, and the prose around them, without its reasoning.

    Raises:
        ValueError: an object or the reasoning does not end, or an object has a duplicate key.
    """
    text = _FENCE.sub("\n", _after_thinking(answer))
    objects: list[dict[str, object]] = []
    around: list[str] = []
    at = 0
    for begins in _OBJECT.finditer(text):
        if begins.start() < at:
            continue
        around.append(text[at : begins.start()])
        try:
            given, at = _DECODER.raw_decode(text, begins.start())
        except RecursionError:
            raise ValueError("an object that is nested too deep") from None
        objects.append(cast("dict[str, object]", given))
    around.append(text[at:])
    return objects, "\n".join(around)


def _after_thinking(answer: str) -> str:
    at = 0
    for end in _THINKING_ENDS.finditer(answer):
        at = end.end()
    if _THINKING_BEGINS.search(answer, at):
        raise ValueError("it has not ended thinking")
    return answer[at:]


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    given = dict(pairs)
    if len(given) < len(pairs):
        raise ValueError("an object that has a key twice")
    return given


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_once)


def _verdict_of(value: object) -> str:
    said = value.strip(" \n.!*").lower() if isinstance(value, str) else None
    if said not in ("yes", "no"):
        raise ValueError(f"neither a clear yes nor a clear no: {value!r}")
    return said


def _only(verdicts: Sequence[str]) -> str:
    """The one verdict that all of these agree on."""
    if len(set(verdicts)) != 1:
        raise ValueError("both yes and no" if verdicts else "neither a clear yes nor a clear no")
    return verdicts[0]


class _Prose:
    """The verdicts in a text, from which Markdown's marks have been removed."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._first = _BEGINS_WITH.match(text)
        self._called = list(_CALLED.finditer(text))
        last = ""
        for sentence in _SENTENCE_ENDS.split(text):
            last = sentence if sentence.strip() else last
        self._concluded = _CONCLUDES.fullmatch(last)
        self._last = _LAST.fullmatch(last)

    def opposes(self, said: str) -> bool:
        """Whether it contains a different verdict."""
        given = [self._first, *self._called, self._concluded, self._last]
        return any(one[1].lower() != said for one in given if one)

    def verdict(self) -> tuple[str, str | None]:
        """The verdict, and the reason.

        Raises:
            ValueError: it is not clear.
        """
        strong = [one[1].lower() for one in (*self._called, self._concluded) if one]
        weak = [one[1].lower() for one in (self._first, self._last) if one]
        if strong:
            said = _only([*strong, *([self._first[1].lower()] if self._first else [])])
        else:
            said = _only(weak)
            if any(one[1].lower() != said for one in _ALONE.finditer(self._text)):
                raise ValueError("both yes and no")
        against = _MEETS_NOT if said == "yes" else _MEETS
        for one in (self._first, *self._called[-1:]):
            if one and (
                _HEDGE.match(self._text, one.end()) or against.search(self._text, one.end())
            ):
                raise ValueError(f"a {said} that takes itself back")
        return said, self._reason()

    def _reason(self) -> str | None:
        """The text after the verdict, or else the sentences before it."""
        verdict = self._first or (self._called[-1] if self._called else None)
        if verdict and (begins := _WORD.search(self._text, verdict.end())):
            return self._text[begins.start() :].rstrip()
        whole = _SENTENCES.match(self._text, 0, verdict.start() if verdict else len(self._text))
        return whole[0].strip() if whole else None
