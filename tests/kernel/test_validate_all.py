"""What validators are handed, and what is said of one that fails and may be skipped."""

from __future__ import annotations

import logging
import math
from typing import Any

import anyio
import pytest

from mellea_sc import Requirement, SimpleContext, ValidationResult, ValidatorTimeout
from mellea_sc.runtime.validation import validate_all
from mellea_sc.testing import ScriptedBackend

pytestmark = pytest.mark.anyio


class Noting(Requirement):
    """Notes what it is handed."""

    async def validate(self, backend: Any, ctx: Any, **given: Any) -> ValidationResult:
        return ValidationResult(True, reason=repr(given))


class Slow(Requirement):
    async def validate(self, backend: Any, ctx: Any, **given: Any) -> ValidationResult:
        await anyio.sleep(math.inf)
        raise AssertionError


class Raising(Requirement):
    async def validate(self, backend: Any, ctx: Any, **given: Any) -> ValidationResult:
        raise LookupError("it broke")


async def test_every_validator_is_handed_the_format_and_the_options() -> None:
    schema, options = {"type": "string"}, {"temperature": 0}
    [verdict] = await validate_all(
        [Noting()], ScriptedBackend(), SimpleContext(), format=schema, model_options=options
    )
    assert verdict.reason == repr({"format": schema, "model_options": options})


async def test_the_timeout_is_that_of_the_call_for_a_requirement_without_one() -> None:
    with anyio.fail_after(5), pytest.raises(ValidatorTimeout, match=r"within 0\.01 s"):
        await validate_all([Slow()], ScriptedBackend(), SimpleContext(), timeout=0.01)


async def test_an_error_that_is_skipped_is_logged_with_its_requirement(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lenient = Raising("a condition", fail_open=True)
    with caplog.at_level(logging.WARNING):
        assert all(await validate_all([lenient], ScriptedBackend(), SimpleContext()))
    [entry] = caplog.records
    assert entry.getMessage() == f"an error in {lenient!r} counts as passed"
    assert entry.exc_info is not None
    assert str(entry.exc_info[1]) == "it broke"
