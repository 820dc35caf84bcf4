"""What the tests of strategies share: requirements that look at text, and a model that is slow."""

from __future__ import annotations

from mellea_sc import Context, PartialValidationResult, Requirement, check, simple_validate
from mellea_sc.core.backend import Backend
from mellea_sc.core.requirement import OnFail
from mellea_sc.stdlib import StreamChunkingResult
from mellea_sc.testing import Pause, Script, Step


class Without(Requirement):
    """No chunk has a word in it; says which chunks its copies saw, and with what before them."""

    def __init__(
        self,
        word: str,
        *,
        on_fail: OnFail | None = None,
        replacement: str | None = None,
        blocking: bool = True,
        window: int = 0,
        every: int = 1,
    ) -> None:
        super().__init__(
            f"no {word}",
            simple_validate(lambda text: word not in text, reason=f"{word} at the end"),
            on_fail=on_fail,
            blocking=blocking,
            window=window,
            every=every,
        )
        self.word = word
        self.replacement = replacement
        self.seen: tuple[list[str], list[str]] = ([], [])

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        self.seen[0].append(chunk)
        if self.window:
            before = ctx.last_output()
            assert before is not None
            self.seen[1].append(before.value)
        if self.word in chunk:
            return PartialValidationResult(
                "fail", reason=f"{self.word} in {chunk!r}", replacement=self.replacement
            )
        return PartialValidationResult("pass")


def is_(*wanted: str) -> Requirement:
    return check("r", simple_validate(lambda text: text in wanted, reason="it is another"))


def slow(text: str, seconds: float) -> Script:
    """An answer that comes after a time, and then all at once."""
    return Script([Pause(seconds), text])


def sentences(*texts: str, delay: float = 1.0) -> Script:
    """An answer whose deltas are sentences, each after a time."""
    steps: list[Step] = [f"{text} " for text in texts]
    return Script(steps, delay=delay)


async def chunks_of(result: StreamChunkingResult) -> list[str]:
    return [chunk async for chunk in result.astream()]
