"""Unicode normalisation of a text while it comes: "é" is one character, however it was composed.

A text is normalised segment by segment. A segment is a character that combines with nothing before it, and all
characters that may combine with it. So the last segment of a text is not certain before the next one begins.
"""

from __future__ import annotations

import enum
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Final

import attrs

from mellea_sc.stdlib.requirements.expressions.tree import Form
from mellea_sc.stdlib.requirements.scanned import UNKNOWN, Piece, Scanner

LONGEST_SEGMENT: Final = 32
"""The maximum length of a segment: no language puts more marks on a letter."""
_COMPOSED: Final = (range(0xA0, 0x3100), range(0x11000, 0x12000), range(0x16D00, 0x16E00))
"""The ranges of composed characters, except the Korean syllables."""
_MARKS: Final = (range(0x300, 0x3100), range(0xA600, 0xAC00), range(0xFB00, 0xFF00))
_MORE_MARKS: Final = (range(0x10000, 0x12000), range(0x16A00, 0x1EA00))
_SYLLABLES: Final = range(0xAC00, 0xD7A4)
_TRAILS: Final = 28
"""The number of syllables that differ only in the final consonant; the first of them has none."""
_LEADING: Final = range(0x1100, 0x1113)
_INNER_JAMO: Final = range(0x1160, 0x1200)
_KIRAT_VOWELS: Final = range(0x16D63, 0x16D6B)


def normal_text(text: str, form: Form | None) -> str:
    """Normalise a whole text, in the same way as the scanner."""
    if form is None or unicodedata.is_normalized(form, text):
        return text
    return "".join(unicodedata.normalize(form, segment) for segment in _segments(text, form))


class Last(enum.Enum):
    """The state of the last character of a text that goes on."""

    COMBINES = enum.auto()
    """Part of a segment with those before it."""
    IS_CERTAIN = enum.auto()
    """Nothing combines with it."""
    IS_HARMLESS = enum.auto()
    """It may change, but nothing that may fail begins with what it may become."""
    WAITS = enum.auto()
    """It may change, and that matters."""


@attrs.define
class _Changed:
    """A segment that normalisation has changed: its span in the normalised text, and the original."""

    at: int
    end: int
    raw: str
    given: bool = False


class NormalizingScanner(Scanner):
    """Has another scanner validate the normalised text, and applies its verdicts to the original text.

    A segment fails as a whole if a part of it fails.

    Args:
        scanner: Validates the normalised text.
        form: The normalisation form.
        may_begin_with: Whether a failing span may begin with one of these characters. If not, and nothing is held
            back, the last character passes at once although a combining mark may follow. ``None``: it never does.
        told_apart: Reduces characters to one for each class that the other scanner treats alike. Held text and the
            last character pass if they would pass with every class.
    """

    def __init__(
        self,
        scanner: Scanner,
        form: Form,
        may_begin_with: Callable[[str], bool] | None = None,
        told_apart: Callable[[str], list[str]] | None = None,
    ) -> None:
        self._scanner = scanner
        self._form: Form = form
        self._may_begin_with = may_begin_with
        self._told_apart = told_apart
        self._lasts: dict[str, Last] = {}
        self._ends_by: dict[str, list[str]] = {}
        self._pending = ""  # the last segment, which the other scanner has not received
        self._ahead = 0  # 1 if its first character has passed nevertheless
        self._fed: int = 0  # how many normalised characters the other scanner has received
        self._out: int = 0  # how many of them it has returned
        self._changed: deque[_Changed] = deque()  # the changed segments between the two

    def fresh(self) -> NormalizingScanner:
        """A new scanner with the same settings."""
        scanner = self._scanner.fresh()
        new = NormalizingScanner(scanner, self._form, self._may_begin_with, self._told_apart)
        new._lasts, new._ends_by = self._lasts, self._ends_by
        return new

    def feed(self, delta: str) -> Sequence[Piece]:
        """The pieces that are decided by this delta."""
        if not delta:
            return ()
        raw = self._pending + delta
        last = self._lasts.get(delta[-1]) or self._last(delta[-1])
        if last is not Last.COMBINES and len(self._pending) < 2 and self._fed == self._out:
            # the fast path, for nearly all text
            ready = raw if last is Last.IS_CERTAIN else raw[:-1]
            if (
                (raw.isascii() or unicodedata.is_normalized(self._form, raw))
                and ready
                and self._scanner.passes(ready)
            ):
                self._fed += len(ready)
                self._out = self._fed
                self._pending = raw[len(ready) :]
                passed = (ready if last is Last.WAITS else raw)[self._ahead :]
                self._ahead = 1 if last is Last.IS_HARMLESS else 0
                return (Piece.of(passed),) if passed else ()
        return self._feed(raw)

    def _feed(self, raw: str) -> list[Piece]:
        certain = _certain(raw, self._form)
        self._pending = raw[certain:]
        pieces = self._judge(raw[:certain]) if certain else []
        if len(self._pending) == 1 and not self._ahead and self._lets_go(self._pending):
            pieces += self._raw(self._scanner.let_go())
            self._ahead = 1
            if pieces and pieces[-1].verdict is UNKNOWN:
                pieces[-1] = Piece.of(pieces[-1] + self._pending)
            else:
                pieces.append(Piece.of(self._pending))
        return pieces

    def _lets_go(self, last: str) -> bool:
        """Whether the last character passes with all that is held back before it, whatever it becomes."""
        if self._last(last) is Last.COMBINES or self._changed:
            return False
        if self._scanner.is_idle:
            return self._last(last) is Last.IS_HARMLESS
        return self._told_apart is not None and self._scanner.lets_go(self._ends(last))

    def _ends(self, last: str) -> list[str]:
        ends = self._ends_by.get(last)
        if ends is None:
            now = unicodedata.normalize(self._form, last)
            assert self._told_apart is not None
            ends = [now[:-1] + end for end in self._told_apart(now[-1] + _may_become(now[-1]))]
            self._ends_by[last] = ends
        return ends

    def flush(self) -> Sequence[Piece]:
        """The rest: the text has ended."""
        pieces = self._judge(self._pending) if self._pending else []
        self._pending = ""
        return [*pieces, *self._raw(self._scanner.flush())]

    def _judge(self, text: str) -> list[Piece]:
        if not text.isascii() and not unicodedata.is_normalized(self._form, text):
            text = self._normalised(text)
        self._fed += len(text)
        return self._raw(self._scanner.feed(text))

    def _normalised(self, text: str) -> str:
        parts: list[str] = []
        at = self._fed
        for segment in _segments(text, self._form):
            normal = unicodedata.normalize(self._form, segment)
            if normal != segment:
                self._changed.append(_Changed(at, at + len(normal), segment))
            parts.append(normal)
            at += len(normal)
        return "".join(parts)

    def _raw(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The pieces of the original text for pieces of the normalised text."""
        given: list[Piece] = []
        for piece in pieces:
            begin, end = self._out, self._out + len(piece)
            text: str = self._original(piece, begin, end) if self._changed else piece
            self._out = end
            if self._ahead and text:
                text, self._ahead = text[1:], 0
            if text:
                given.append(piece if text is piece else Piece.of(text, piece.verdict))
        return given

    def _original(self, piece: Piece, begin: int, end: int) -> str:
        # A segment belongs to the first failing piece that has a part of it, or else to the last piece that has one.
        parts: list[str] = []
        at = begin
        while self._changed and self._changed[0].at < end:
            segment = self._changed[0]
            parts.append(piece[at - begin : max(at, segment.at) - begin])
            at = min(end, segment.end)
            if not segment.given and (segment.end <= end or piece.verdict is not UNKNOWN):
                parts.append(segment.raw)
                segment.given = True
            if segment.end > end:
                break
            self._changed.popleft()
        parts.append(piece[at - begin :])
        return "".join(parts)

    def _last(self, char: str) -> Last:
        last = self._lasts.get(char)
        if last is None:
            now = unicodedata.normalize(self._form, char)
            later = _may_become(now[-1])
            if not _begins_segment(char, self._form):
                last = Last.COMBINES
            elif _stands_alone(char, self._form):
                last = Last.IS_CERTAIN
            elif self._may_begin_with is None or self._may_begin_with(now + later + _marks()):
                last = Last.WAITS
            else:
                last = Last.IS_HARMLESS
            self._lasts[char] = last
        return last


def _certain(text: str, form: Form) -> int:
    """The number of characters of a text that are certain, if it begins with a segment and goes on."""
    at = len(text) - 1
    while at > 0 and not _begins_segment(text[at], form):
        at -= 1
    if at >= 0 and _stands_alone(text[at], form):
        at += 1
    return at + (len(text) - at) // LONGEST_SEGMENT * LONGEST_SEGMENT


def _segments(text: str, form: Form) -> Iterator[str]:
    begin = 0
    for at in range(1, len(text)):
        if (
            _begins_segment(text[at], form)
            or at - begin == LONGEST_SEGMENT
            or (at - begin == 1 and _stands_alone(text[begin], form))
        ):
            yield text[begin:at]
            begin = at
    yield text[begin:]


@lru_cache(maxsize=1 << 14)
def _stands_alone(char: str, form: Form) -> bool:
    """Whether a character combines with nothing before or after it."""
    return _begins_segment(char, form) and not _may_become(unicodedata.normalize(form, char)[-1])


@lru_cache(maxsize=1 << 14)
def _begins_segment(char: str, form: Form) -> bool:
    """Whether nothing before a character combines with it."""
    first = unicodedata.normalize("NFD" if form == "NFC" else "NFKD", char)[0]
    code = ord(first)
    return not (
        unicodedata.category(first).startswith("M") or code in _INNER_JAMO or code in _KIRAT_VOWELS
    )


@lru_cache(maxsize=1 << 14)
def _may_become(char: str) -> str:
    """All characters that a character may become when others are combined with it."""
    code = ord(char)
    if code in _SYLLABLES:
        return (
            "" if (code - _SYLLABLES.start) % _TRAILS else _chars(range(code + 1, code + _TRAILS))
        )
    if code in _LEADING:
        return _chars(_SYLLABLES)
    return _composed_with().get(unicodedata.normalize("NFD", char)[0], "")


@cache
def _composed_with() -> dict[str, str]:
    found: dict[str, str] = {}
    for code in chain(*_COMPOSED):
        first = unicodedata.normalize("NFD", chr(code))[0]
        if ord(first) != code:
            found[first] = found.get(first, "") + chr(code)
    return found


@cache
def _marks() -> str:
    codes = chain(*_MARKS, *_MORE_MARKS)
    return "".join(chr(code) for code in codes if unicodedata.category(chr(code)).startswith("M"))


def _chars(codes: range) -> str:
    return "".join(map(chr, codes))
