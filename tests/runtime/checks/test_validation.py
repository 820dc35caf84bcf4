"""What validators are handed, and what is said of one that fails and may be skipped."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from kit import Check, Judge, always, hanging, straying

from mellea_sc import (
    Requirement,
    RunError,
    SessionClosed,
    SimpleContext,
    ValidationResult,
    ValidatorTimeout,
    start_session,
)
from mellea_sc.runtime.checks.validation import validate_all
from mellea_sc.testing import ScriptedBackend

pytestmark = pytest.mark.anyio


class Noting(Requirement):
    """Notes what it is handed."""

    async def validate(self, backend: Any, ctx: Any, **given: Any) -> ValidationResult:
        return ValidationResult(True, reason=repr(given))


async def test_every_validator_is_handed_the_format_and_the_options() -> None:
    schema, options = {"type": "string"}, {"temperature": 0}
    [verdict] = await validate_all(
        [Noting()], ScriptedBackend(), SimpleContext(), format=schema, model_options=options
    )
    assert verdict.reason == repr({"format": schema, "model_options": options})


async def test_the_timeout_is_that_of_the_call_for_a_requirement_without_one() -> None:
    with anyio.fail_after(5), pytest.raises(ValidatorTimeout, match=r"within 0\.01 s"):
        await validate_all([Check(final=hanging)], ScriptedBackend(), SimpleContext(), timeout=0.01)


async def test_an_error_that_is_skipped_is_logged_with_its_requirement(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lenient = Check(final=always(LookupError("it broke")), fail_open=True)
    with caplog.at_level(logging.WARNING):
        assert all(await validate_all([lenient], ScriptedBackend(), SimpleContext()))
    [entry] = caplog.records
    assert entry.getMessage() == f"an error in {lenient!r} counts as passed"
    assert entry.exc_info is not None
    assert str(entry.exc_info[1]) == "it broke"


@pytest.mark.parametrize(
    ("judge", "error"),
    [(always(LookupError("it broke")), "it broke"), (hanging, "did not return within 0.01 s")],
    ids=["breaks", "hangs"],
)
async def test_a_skipped_error_of_a_running_text_is_logged_with_its_requirement(
    judge: Judge, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    unsteady = Check(judge, fail_open=True, timeout=0.01)
    async with start_session(backend=ScriptedBackend("One.")) as m:
        with caplog.at_level(logging.WARNING):
            await (await m.stream("?", requirements=[unsteady])).acomplete()
    [entry] = caplog.records
    assert entry.getMessage() == "an error in <Check 'a check'> counts as unknown"
    assert entry.exc_info is not None
    assert error in str(entry.exc_info[1])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio knows no such thing
async def test_a_cancellation_that_nobody_asked_for_is_an_error_that_names_the_requirement() -> (
    None
):
    with pytest.raises(RunError, match="validate of <Check 'a check'> raised a cancellation"):
        await validate_all([Check(final=straying)], ScriptedBackend(), SimpleContext())


@pytest.mark.parametrize("when", ["streaming", "at the end"])
async def test_a_validator_that_uses_an_ended_session_is_an_error_of_its_run(when: str) -> None:
    ended = always(SessionClosed("that one has ended"))
    uses = Check(ended) if when == "streaming" else Check(final=ended)
    async with start_session(backend=ScriptedBackend("One. Two.")) as m:
        result = await m.stream("?", requirements=[uses])
        with pytest.raises(SessionClosed, match="that one has ended"):
            await result.acomplete()
        assert not result.completed
