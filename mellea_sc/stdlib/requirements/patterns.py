"""What must and what must not stand in an answer: regular expressions, judged while the text comes."""

from __future__ import annotations

import re
from functools import partial
from typing import Final, get_args

from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.plain_text import quoted
from mellea_sc.core.requirement import OnFail, PartialValidationResult, ValidationResult
from mellea_sc.stdlib.requirements.expressions.expression import (
    Allowance,
    Expression,
    compile_pattern,
    expression_of,
)
from mellea_sc.stdlib.requirements.expressions.normal_text import NormalizingScanner, normal_text
from mellea_sc.stdlib.requirements.expressions.scanners import FullMatchScanner, MatchScanner
from mellea_sc.stdlib.requirements.expressions.tree import Form
from mellea_sc.stdlib.requirements.making import simple_validate
from mellea_sc.stdlib.requirements.pieces import LONGEST, Found, Scanner
from mellea_sc.stdlib.requirements.scanned import ScannedRequirement, WindowScanner

__all__ = ["MustMatch", "MustNotMatch"]

DEFAULT_WINDOW: Final = 64


class MustNotMatch(ScannedRequirement):
    r"""Nothing in the answer matches a regular expression; no part of a match is ever shown.

    Text is held back only where a match may have begun, and no longer than that is open: while ``\bgas\b``
    is looked for, ``"When a volcano "`` is shown at once, and ``"ga"`` waits for what follows. So, whatever
    the chunking and wherever the deltas were cut:

    - of a match of an expression whose matches have a greatest length (``\b\d{3}-\d{4}\b``) not a character
      is released;
    - another (``key=\S+``) may go on for ever: then ``window`` characters are waited for, and what they
      hold is judged as if the text ended there. Of a match that fits in the window, or whose beginning
      in the window matches by itself, not a character is released, and the rest of it fails too (as
      long as it has at most 65536 characters). Otherwise (``BEGIN.*END`` over several lines) it is found at
      the end, when :meth:`Requirement.validate` searches the whole text.

    Expressions are those of :mod:`re`, matched by the package ``regex``, which can give up: one that takes
    too long on a step is an error. Words (``\w``, ``\b``) are Unicode's: an accent belongs to its letter.

    Args:
        pattern: The expression, searched for anywhere in the text; flags as ``(?i)`` or compiled in.
        description: What must not be there, in words, for the prompt and for the reason of a fail.
            Without it the prompt says nothing of this requirement: a model that is told a forbidden
            word tends to use it.
        window: How many characters a match may need; by default as many as the expression does, and
            64 where that has no bound.
        replacement: What stands in the place of a match with ``on_fail="fix"``.
        normalize: The Unicode normalisation under which is compared, ``"NFC"`` or ``"NFKC"``: "é" is found
            however it was composed. With ``None`` characters are compared as they are.
        check_only: Leave the description out of the prompt; by default where there is none.
        on_fail: What happens after a match, see :class:`Requirement`.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the pattern is not a regular expression, the window not a positive number, or there
            is no such normalisation.
        PatternTooSlow: from the judging, when the expression takes too long.
    """

    def __init__(
        self,
        pattern: str | re.Pattern[str],
        description: str | None = None,
        *,
        window: int | None = None,
        replacement: str = "[…]",
        normalize: Form | None = "NFC",
        check_only: bool | None = None,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        compiled, expression = _read(pattern, normalize)
        if window is None:
            window = _width(expression)
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise InvalidOption(f"window must be a whole number of at least 1, not {window!r}")
        # What matched is not quoted: whoever reads the reason may be who must not read the match.
        reason = (
            f"there is a match of {quoted(compiled.pattern)}"
            if description is None
            else description
        )
        verdict = PartialValidationResult("fail", reason=reason, replacement=replacement)
        super().__init__(
            f"no match of {quoted(compiled.pattern)}" if description is None else description,
            simple_validate(partial(_has_no_match, expression, normalize, reason)),
            _scanner(expression, window, verdict, normalize),
            check_only=description is None if check_only is None else check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.pattern = compiled
        self.reach = window


class MustMatch(ScannedRequirement):
    r"""A regular expression matches: somewhere in the answer, or with ``full`` the whole of it.

    A text in which nothing matches so far may go on to match: then only the end decides. The whole
    text, though, cannot match any more as soon as no continuation of it could: that stops the stream.
    Text is judged, and released, in steps that grow with it, to one 64th of its length, so that the
    work per character does not grow.

    Args:
        pattern: The expression, as for :class:`MustNotMatch`.
        description: What has to be there, in words, for the prompt and for the reason of a fail; by
            default the pattern.
        full: The whole answer has to match.
        normalize: As for :class:`MustNotMatch`.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`. After one, every piece fails.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the pattern is not a regular expression, or there is no such normalisation.
        PatternTooSlow: from the judging, when the expression takes too long.
    """

    def __init__(
        self,
        pattern: str | re.Pattern[str],
        description: str | None = None,
        *,
        full: bool = False,
        normalize: Form | None = "NFC",
        check_only: bool = False,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        compiled, expression = _read(pattern, normalize)
        which = "the whole text" if full else "a part of the text"
        super().__init__(
            f"{which} matches {quoted(compiled.pattern)}" if description is None else description,
            simple_validate(partial(_matches, expression, full, normalize, description)),
            _full_scanner(expression, normalize, description) if full else None,
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.pattern = compiled
        self.full = full


def _read(
    pattern: str | re.Pattern[str], normalize: Form | None
) -> tuple[re.Pattern[str], Expression]:
    if normalize is not None and normalize not in get_args(Form):
        known = ", ".join(map(repr, get_args(Form)))
        raise InvalidOption(f"normalize must be one of {known} or None, not {normalize!r}")
    compiled = compile_pattern(pattern)
    return compiled, expression_of(compiled, normalize)


def _width(expression: Expression) -> int:
    """How many characters decide what begins at a position."""
    seen = expression.size.seen
    return DEFAULT_WINDOW if seen > LONGEST else max(1, int(seen))


def _scanner(
    expression: Expression, window: int, verdict: PartialValidationResult, form: Form | None
) -> Scanner:
    scanner: Scanner
    if expression.open is None:
        scanner = WindowScanner(partial(_find, expression, verdict), window)
    else:
        scanner = MatchScanner(expression, window, verdict)
    if form is None:
        return scanner
    return NormalizingScanner(scanner, form, expression.may_begin_with, expression.told_apart)


def _full_scanner(
    expression: Expression, form: Form | None, description: str | None
) -> Scanner | None:
    if expression.open_whole is None:
        return None
    cannot = f"whatever follows, the whole text cannot match {quoted(expression.said)} any more"
    scanner = FullMatchScanner(expression, cannot if description is None else description)
    return scanner if form is None else NormalizingScanner(scanner, form)


def _find(
    expression: Expression, verdict: PartialValidationResult, text: str, at: int, end: int
) -> Found | None:
    found = expression.match(text, at, min(end, len(text)), Allowance.of(0))
    return None if found is None else Found(found, verdict)


def _has_no_match(
    expression: Expression, form: Form | None, reason: str, text: str
) -> ValidationResult:
    text = normal_text(text, form)
    if expression.search(text, 0, len(text), Allowance.of(len(text))) is None:
        return ValidationResult(True)
    return ValidationResult(False, reason=reason)


def _matches(
    expression: Expression, full: bool, form: Form | None, description: str | None, text: str
) -> ValidationResult:
    text = normal_text(text, form)
    if full:
        matches = expression.matches_wholly(text, Allowance.of(len(text)))
    else:
        matches = expression.search(text, 0, len(text), Allowance.of(len(text))) is not None
    if matches:
        return ValidationResult(True)
    what = "the whole text does not match" if full else "there is no match of"
    return ValidationResult(
        False, reason=f"{what} {quoted(expression.said)}" if description is None else description
    )
