"""Requirements that search an answer for a regular expression while it streams."""

from __future__ import annotations

import re
from functools import partial
from typing import Final, get_args

from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.plain_text import quoted
from mellea_sc.core.question import check_count
from mellea_sc.core.requirement import OnFail, PartialValidationResult
from mellea_sc.stdlib.requirements.expressions.expression import (
    Allowance,
    Expression,
    compile_pattern,
    expression_of,
)
from mellea_sc.stdlib.requirements.expressions.normal_text import NormalizingScanner, normal_text
from mellea_sc.stdlib.requirements.expressions.scanners import (
    LONGEST,
    FullMatchScanner,
    MatchScanner,
)
from mellea_sc.stdlib.requirements.expressions.tree import Form
from mellea_sc.stdlib.requirements.scanned import ScannedRequirement, Scanner

DEFAULT_WINDOW: Final = 64


class MustNotMatch(ScannedRequirement):
    r"""Nothing in the answer matches a regular expression; no part of a match is ever shown.

    Text is held back only where a match may have begun, and only until that is decided. For ``\bgas\b``,
    ``"When a volcano "`` is shown at once, and ``"ga"`` waits for the text that follows. With any chunking, and
    wherever the deltas were cut:

    - If the matches of the expression have a maximum length (``\b\d{3}-\d{4}\b``), no character of a match is
      released.
    - Otherwise (``key=\S+``) a match may go on for ever. A position is then decided by the ``window`` of characters
      that begins there, as if the text ended after them. If a match fits in the window, or its beginning in the
      window matches by itself, no character of it is released, and the rest of it fails too (up to 65536
      characters). Any other match (``BEGIN.*END`` over several lines) is found at the end, when
      :meth:`Requirement.validate` searches the whole text.

    Expressions are those of :mod:`re`. They are matched by the package ``regex``, which has a timeout: an expression
    that takes too long is an error. ``\w`` and ``\b`` follow Unicode: an accent belongs to its letter.

    Args:
        pattern: The expression, searched for anywhere in the text; flags as ``(?i)`` or compiled in.
        description: What must not be in the answer, in words, for the prompt and for the reason of a fail.
            Without it the requirement is not in the prompt: a model that is told a forbidden word tends to use it.
        window: The number of characters that decide whether a match begins; by default as many as the expression
            needs, or 64 if that has no maximum.
        replacement: Replaces a match with ``on_fail="fix"``.
        normalize: The Unicode normalisation form for the comparison, ``"NFC"`` or ``"NFKC"``: "é" is found whether
            it is one character or two. With ``None`` characters are compared as they are.
        check_only: Leave the description out of the prompt; by default if there is none.
        on_fail: What happens after a match, see :class:`Requirement`.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the pattern is not a regular expression, the window not a positive number, or the
            normalisation form not known.
        PatternTooSlow: during validation, if the expression takes too long.
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
        check_count("window", window, 1)
        # The match is not quoted, because the reason may be shown to those who must not see the match.
        reason = (
            f"there is a match of {quoted(compiled.pattern)}"
            if description is None
            else description
        )
        verdict = PartialValidationResult("fail", reason=reason, replacement=replacement)
        super().__init__(
            f"no match of {quoted(compiled.pattern)}" if description is None else description,
            _scanner(expression, window, verdict, normalize),
            partial(_found_match, expression, normalize, reason),
            check_only=description is None if check_only is None else check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.pattern = compiled
        self.reach = window


class MustMatch(ScannedRequirement):
    r"""A regular expression matches somewhere in the answer, or with ``full`` the whole answer.

    Without ``full`` only the end decides, because a match may still come. With ``full`` the stream is stopped as soon
    as no continuation of the text can match. Text is then validated and released in steps, of up to one 64th of its
    length, so that the work per character does not grow.

    Args:
        pattern: The expression, as for :class:`MustNotMatch`.
        description: What must be in the answer, in words, for the prompt and for the reason of a fail; by
            default the pattern.
        full: Whether the whole answer must match.
        normalize: As for :class:`MustNotMatch`.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`. After one, every piece fails: with ``"filter"``
            the text ends before the first character after which nothing can match, and the model is stopped.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the pattern is not a regular expression, or the normalisation form not known.
        PatternTooSlow: during validation, if the expression takes too long.
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
            _full_scanner(expression, normalize, description) if full else None,
            partial(_missed_match, expression, full, normalize, description),
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
    """The number of characters that decide whether a match begins at a position."""
    seen = expression.size.seen
    return DEFAULT_WINDOW if seen > LONGEST else max(1, int(seen))


def _scanner(
    expression: Expression, window: int, verdict: PartialValidationResult, form: Form | None
) -> Scanner:
    scanner = MatchScanner(expression, window, verdict)
    if form is None:
        return scanner
    return NormalizingScanner(scanner, form, expression.may_begin_with, expression.told_apart)


def _full_scanner(
    expression: Expression, form: Form | None, description: str | None
) -> Scanner | None:
    if expression.open_whole is None:
        return None
    cannot = f"whatever follows, the whole text cannot match {quoted(expression.source)} any more"
    scanner = FullMatchScanner(expression, cannot if description is None else description)
    return scanner if form is None else NormalizingScanner(scanner, form)


def _found_match(expression: Expression, form: Form | None, reason: str, text: str) -> str | None:
    return reason if _has_match(expression, normal_text(text, form)) else None


def _missed_match(
    expression: Expression, full: bool, form: Form | None, description: str | None, text: str
) -> str | None:
    text = normal_text(text, form)
    if full:
        matches = expression.matches_wholly(text, Allowance.of(len(text)))
    else:
        matches = _has_match(expression, text)
    if matches:
        return None
    what = "the whole text does not match" if full else "there is no match of"
    return f"{what} {quoted(expression.source)}" if description is None else description


def _has_match(expression: Expression, text: str) -> bool:
    return expression.search(text, 0, len(text), Allowance.of(len(text))) is not None
