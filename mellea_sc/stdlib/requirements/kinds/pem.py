r"""Private keys in PEM blocks, in any quotation.

A block is base64 in lines, between a first and a last line. In a string literal, a block quote, a table, a list, a
diff, a comment or a web page, there are other characters around each line, and lines may be separated by ``\n`` or
``<br>``. So the text after a first line is read as runs of base64 with such *trimmings* between them, until the last
line, or until a text that is neither.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["FIRST_LINE", "follow_pem"]

FIRST_LINE: Final = re.compile(
    r"-{3,5}[ ]?BEGIN[ ](?:[A-Z0-9]+[ ]){0,3}PRIVATE[ ]KEY(?:[ ]BLOCK)?(?:[ ]?-{3,5})?"
)

LONG: Final = 16
"""The minimum length of a run of letters and digits that is base64 and not a word."""

TRIMMINGS: Final = 120
"""The maximum length of the trimmings between two runs."""

DASHES_AND_SPACE: Final = 6

_TRIMMING: Final = r"""(?: \\[nrt] | <br\s*/?> | </?[a-z]{1,6}> | &(?:gt|quot|lt|\#\d{1,4}); | -(?!---)
    | [\s>|\#*"'`,()\[\]{};:._~\\] | [+/](?=[\s"'+/]) | (?<=[\n|>])[+](?=\S) | \d{1,5}(?=[\s|:.)]) )"""
_LAST_LINE: Final = (
    r"-{3,5}[ ]?END[ ](?:[A-Z0-9]+[ ]){0,3}PRIVATE[ ]KEY(?:[ ]BLOCK)?(?:[ ]?-{3,5})?"
)
_HEADER: Final = r"(?:Proc-Type|DEK-Info|Version|Comment|Hash|Charset|MessageID):[^\n\\\"<|]{0,100}"
_STEP: Final = re.compile(
    rf"{_TRIMMING}{{0,{TRIMMINGS}}}+(?:(?P<last>{_LAST_LINE})|(?P<head>{_HEADER})|(?P<run>[A-Za-z0-9+/=]+))?",
    re.VERBOSE,
)
_REST_OF_RUN: Final = re.compile(r"[A-Za-z0-9+/=]*")
_LAST: Final = re.compile(rf"{_TRIMMING}{{0,{TRIMMINGS}}}+{_LAST_LINE}", re.VERBOSE)
_LINE_END: Final = re.compile(r"""[ \t]*(?:[\r\n"'`|\\]|<br|\Z)""")
_LOOKS_RANDOM: Final = re.compile(r"=\Z|[0-9+/]|[a-z][A-Z]|[A-Z]{2}[a-z]")
_ENOUGH: Final = TRIMMINGS + 80


def follow_pem(text: str, at: int, ended: bool) -> tuple[int, bool]:
    """Follow a private key, see ``Follow``."""
    if text[at - 1] != "-" and (rest := _REST_OF_RUN.match(text, at)):
        at = rest.end()
    while True:
        if at == len(text):
            return at, not ended
        step = _STEP.match(text, at)
        if step is None:
            return at, False
        known = len(text) - step.end() >= _ENOUGH or ended
        if step["last"] is not None:
            is_whole = known or len(text) - step.end() > DASHES_AND_SPACE
            return (step.end(), False) if is_whole else (at, True)
        if step["head"] is not None:
            if not known:
                return at, True
        elif step["run"] is None:
            return at, not known and step.end() - at < TRIMMINGS
        elif len(step["run"]) < LONG:
            if not known:
                return at, True
            if not _is_body(text, step):
                return at, False
        at = step.end()


def _is_body(text: str, step: re.Match[str]) -> bool:
    """Whether a short run belongs to the key."""
    if _LAST.match(text, step.end()):
        return True
    return bool(_LOOKS_RANDOM.search(step["run"]) and _LINE_END.match(text, step.end()))
