"""Several attempts at once: the first good one, the best one, or what most of them say."""

from __future__ import annotations

import copy
import inspect
import math
import unicodedata
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

import attrs

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.errors import BackendError, InvalidOption, InvalidVerdict
from mellea_sc.core.question import check_count
from mellea_sc.core.requirement import Requirement
from mellea_sc.runtime.checks.validation import validate_all
from mellea_sc.stdlib.sampling.base import PlannedStrategy
from mellea_sc.stdlib.sampling.plan import Ask, Choice
from mellea_sc.stdlib.sampling.results import AttemptResult

Score: TypeAlias = Callable[[str], float | Awaitable[float]] | Requirement
"""What an answer is worth: a function of its text, or a requirement whose verdict has a score."""


@contextmanager
def _asking(name: str, function: object) -> Generator[None]:
    """Around a function of the strategy's: its error says whose it is."""
    try:
        yield
    except BackendError:
        raise  # the attempt's, as of any other generation
    except Exception as error:
        error.add_note(f"raised when the strategy asked its {name}, {function!r}")
        raise


class _Several(PlannedStrategy):
    """Attempts at the same, all at once.

    With a seed in the model options, each attempt has the next one.
    """

    concurrent = True
    asks_anew = False

    def __init__(self, n: int, requirements: Sequence[Requirement | str] | None) -> None:
        super().__init__(requirements)
        check_count("n", n)
        self.n = n

    def is_needed(self, requirements: Sequence[Requirement]) -> bool:
        """Whether there is more than one attempt, or anything to judge."""
        return self.n > 1 or super().is_needed(requirements)

    def begin(self, action: Component | Span, context: Context) -> Sequence[Ask]:
        """All of them."""
        return [Ask(action=action, context=context, chain=chain) for chain in range(self.n)]


class RacingStrategy(_Several):
    """Several candidates at once, judged while they stream: the first that is good wins.

    The others are stopped in that moment, at their connections. A candidate that fails in the middle
    ends there, and is replaced while the budget lasts.

    Args:
        n: How many run at once.
        budget: How many attempts at most, over all; by default twice as many.
        requirements: Requirements in addition to those of the call.

    Raises:
        InvalidOption: a number is less than 1.
    """

    def __init__(
        self,
        n: int = 3,
        *,
        budget: int | None = None,
        requirements: Sequence[Requirement | str] | None = None,
    ) -> None:
        super().__init__(n, requirements)
        self.budget: int = 2 * n if budget is None else budget
        check_count("budget", self.budget)

    def begin(self, action: Component | Span, context: Context) -> Sequence[Ask]:
        """As many as may run."""
        return super().begin(action, context)[: self.budget]

    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        """The winner, or one more candidate in the place of one that failed."""
        last = past[-1]
        if last.valid:
            return Choice(last.number, True)
        if last.begun < self.budget:
            return [attrs.evolve(last.ask, reason=last.reason)]
        return () if running else Choice(_least_bad(past).number, False)


class BestOfNStrategy(_Several):
    """Several answers; of those that are good the one that is worth most is kept.

    Args:
        n: How many.
        score: What an answer is worth; by default the mean of the scores that its final validation
            gave, or 0 where there is none.
        requirements: Requirements in addition to those of the call.

    Raises:
        InvalidOption: ``n`` is less than 1, or the score neither a function nor a requirement.
        InvalidVerdict: when it is used: the score is not a number.
        Exception: when it is used: as the score raises it, once.
    """

    weighs = True

    def __init__(
        self,
        n: int = 3,
        score: Score | None = None,
        *,
        requirements: Sequence[Requirement | str] | None = None,
    ) -> None:
        super().__init__(n, requirements)
        if score is not None and not isinstance(score, Requirement) and not callable(score):
            raise InvalidOption(f"score must be a function or a Requirement, not {score!r}")
        self.score = score

    async def weigh(self, result: AttemptResult, backend: Backend) -> float:
        """What the score says."""
        with _asking("score", self.score):
            return await self._worth_of(result, backend)

    async def _worth_of(self, result: AttemptResult, backend: Backend) -> float:
        score = self.score
        if score is None:
            given = [
                _number(verdict.score, requirement)
                for requirement, verdict in result.validations
                if verdict.score is not None
            ]
            return sum(given) / len(given) if given else 0.0
        worth: object
        if isinstance(score, Requirement):
            asked = result.ask.context.add(result.ask.action)
            judged = asked.add(result.thunk())
            (verdict,) = await validate_all([copy.copy(score)], backend, judged)
            worth = float(verdict.result) if verdict.score is None else verdict.score
        else:
            worth = score(result.text)
            if inspect.isawaitable(worth):
                worth = await worth
        return _number(worth, score)

    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        """The best, when all have ended."""
        if running:
            return ()
        good = [one for one in past if one.valid]
        if not good:
            return Choice(_least_bad(past).number, False)
        best = max(good, key=lambda one: (one.score or 0.0, -one.number))
        return Choice(best.number, True)


class MajorityVotingStrategy(_Several):
    """Several answers; the first of those that say what most of the good ones say is kept.

    As soon as the rest cannot change that any more, it is stopped.

    Args:
        n: How many.
        key: What an answer says; by default its text, white space and case apart.
        requirements: Requirements in addition to those of the call; an answer that is not good has no vote.
        normalize: What answers say is the same if it is in this Unicode form; ``"NFC"``: "é" is one however
            it was composed; ``"NFKC"``: "²" is "2", too; ``None``: only what is the same character for
            character.

    Raises:
        InvalidOption: ``n`` is less than 1, the key not a function, or the form none of these.
        InvalidVerdict: when it is used: the key gave something that is not hashable.
        Exception: when it is used: as the key raises it, once.
    """

    def __init__(
        self,
        n: int = 5,
        key: Callable[[str], Hashable] | None = None,
        *,
        requirements: Sequence[Requirement | str] | None = None,
        normalize: Literal["NFC", "NFKC"] | None = "NFC",
    ) -> None:
        super().__init__(n, requirements)
        if key is not None and not callable(key):
            raise InvalidOption(f"key must be a function, not {key!r}")
        if normalize not in ("NFC", "NFKC", None):
            raise InvalidOption(f'normalize must be "NFC", "NFKC" or None, not {normalize!r}')
        self.key: Callable[[str], Hashable] = key or _what_it_says
        self.normalize: Literal["NFC", "NFKC"] | None = normalize

    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        """The majority's, as soon as it is certain."""
        good = sorted((one for one in past if one.valid), key=lambda one: one.number)
        with _asking("key", self.key):
            said = {one.number: self._said(one.text) for one in good}
        votes = Counter(said.values()).most_common(2)
        lead = votes[0][1] - (votes[1][1] if len(votes) > 1 else 0) if votes else 0
        if running and lead <= running:
            return ()
        if not said:
            return Choice(_least_bad(past).number, False)
        winner = next(number for number, key in said.items() if key == votes[0][0])
        return Choice(winner, True)

    def _said(self, text: str) -> Hashable:
        said: object = self.key(text)
        if isinstance(said, str) and self.normalize is not None:
            return unicodedata.normalize(self.normalize, said)
        try:
            hash(said)
        except TypeError as error:
            raise InvalidVerdict(
                f"the key {self.key!r} must give something hashable, not {said!r}"
            ) from error
        return said


def _what_it_says(text: str) -> str:
    return " ".join(text.split()).casefold()


def _number(worth: object, source: object) -> float:
    if not isinstance(worth, int | float) or math.isnan(worth):
        raise InvalidVerdict(f"the score of {source!r} must be a number, not {worth!r}")
    return float(worth)


def _least_bad(past: Sequence[AttemptResult]) -> AttemptResult:
    """Of answers that are all rejected, the one that meets most."""
    return max(
        past,
        key=lambda one: (one.completed, -len(one.rejected), len(one.text), -one.number),
    )
