"""Every error is under one root, importable from the package, and says who is at fault."""

from __future__ import annotations

import copy
import pickle
import re
import traceback

import anyio
import anyio.lowlevel
import pytest

import mellea_sc
from mellea_sc import (
    BackendBusy,
    BackendError,
    BackendRejected,
    BudgetExceeded,
    GenerationCancelled,
    GenerationRequest,
    MelleaError,
    Requirement,
    RunError,
    StreamConsumed,
    UsageError,
    ValidationResult,
    start_session,
)
from mellea_sc.backends import Usage
from mellea_sc.core import Spent, errors
from mellea_sc.core.base import Context
from mellea_sc.testing import Fail, ScriptedBackend, Stall, Step

KINDS = [getattr(errors, name) for name in errors.__all__]
BRANCHES = (UsageError, BackendError, RunError)


def an(kind: type[MelleaError]) -> MelleaError:
    """An instance of a kind."""
    if issubclass(kind, BackendRejected):
        return kind("message", status=500, body="body")
    if issubclass(kind, BudgetExceeded):
        return kind("message", limit="tokens", allowed=1, spent=Spent())
    return kind("message")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_under_the_root_in_one_branch_and_importable_from_the_package(
    kind: type[MelleaError],
) -> None:
    assert issubclass(kind, MelleaError)
    assert getattr(mellea_sc, kind.__name__) is kind
    assert kind.__name__ in mellea_sc.__all__
    branches = [branch for branch in BRANCHES if issubclass(kind, branch)]
    assert len(branches) == (0 if kind is MelleaError else 1)
    assert kind.__doc__


def test_no_error_of_the_library_is_outside_the_tree() -> None:
    def kinds(kind: type[MelleaError]) -> set[type[MelleaError]]:
        return {kind}.union(*map(kinds, kind.__subclasses__()))

    own = {
        kind
        for kind in kinds(MelleaError)
        if kind.__module__.startswith("mellea_sc")
        and not kind.__module__.startswith("mellea_sc.testing")
    }
    assert own == set(KINDS)


def test_the_tree_in_the_documentation_is_the_tree_in_the_code() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^    ([│ ]*[├└]── )?(\w+)", errors.__doc__, re.MULTILINE)
    path: list[str] = []
    tree: dict[str, str] = {}
    for indent, name in drawn:
        depth = len(indent) // 4
        path[depth:] = [name]
        if depth:
            tree[name] = path[depth - 1]
    assert {*tree, "MelleaError"} == set(errors.__all__)
    for name, parent in tree.items():
        assert getattr(errors, name).__bases__[0].__name__ == parent


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        ("ThunkNotComputed", RuntimeError),
        ("SessionClosed", RuntimeError),
        ("SyncCallInEventLoop", RuntimeError),
        ("WrongEventLoop", RuntimeError),
        ("BackendNotBound", RuntimeError),
        ("StreamConsumed", anyio.BusyResourceError),
        ("InvalidOption", ValueError),
        ("ChunkingError", ValueError),
        ("PromptTemplateError", ValueError),
        ("MissingExtra", ImportError),
        ("BackendUnreachable", ConnectionError),
        ("BackendTimeout", TimeoutError),
        ("ValidatorTimeout", TimeoutError),
        ("InvalidVerdict", TypeError),
    ],
)
def test_a_kind_is_also_what_python_would_raise(kind: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(errors, kind), builtin)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_says_its_message(kind: type[MelleaError]) -> None:
    assert "message" in str(an(kind))
    assert "message" in "".join(traceback.format_exception(an(kind)))


def test_errors_carry_what_there_is_to_know() -> None:
    busy = BackendBusy("busy", status=429, body="later", retry_after=3.0)
    assert (busy.status, busy.body, busy.retry_after) == (429, "later", 3.0)
    cancelled = GenerationCancelled("enough", partial_text="so far", usage=Usage(1, 2))
    assert (cancelled.reason, cancelled.partial_text) == ("enough", "so far")
    assert cancelled.usage == Usage(1, 2)
    assert str(GenerationCancelled()) == "the generation was cancelled"
    assert "astream()" in str(StreamConsumed("astream()"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_can_be_copied_and_sent_to_another_process(kind: type[MelleaError]) -> None:
    error = an(kind)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


# --- groups and cancellations ------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_several_errors_at_once_are_raised_as_their_group_and_one_as_itself() -> None:
    def raises(error: Exception) -> Requirement:
        async def validate(_: Context) -> ValidationResult:
            try:
                await anyio.lowlevel.checkpoint()
            finally:
                raise error

        return Requirement("r", validate)

    a, b = ValueError("a"), KeyError("b")
    async with start_session(backend=ScriptedBackend()) as m:
        with pytest.raises(ExceptionGroup) as caught:
            await m.avalidate([raises(a), raises(b)], output="text")
        assert set(caught.value.exceptions) == {a, b}
        with pytest.raises(ValueError, match="a") as alone:
            await m.avalidate([raises(a)], output="text")
        assert alone.value is a


@pytest.mark.anyio
async def test_a_group_that_a_validator_raises_is_not_unwrapped() -> None:
    group = ExceptionGroup("mine", [ValueError("only one")])

    def validate(_: Context) -> ValidationResult:
        raise group

    async with start_session(backend=ScriptedBackend("text")) as m:
        requirement = Requirement("r", validate)
        with pytest.raises(ExceptionGroup, match="mine") as caught:
            await m.avalidate(requirement, output="text")
        assert caught.value.exceptions == group.exceptions
        thunk = await m.ainstruct("?", requirements=[requirement])
        with pytest.raises(ExceptionGroup, match="mine"):
            await thunk


@pytest.mark.anyio
async def test_the_runtimes_own_cancellation_is_in_no_error() -> None:
    cancelled = anyio.get_cancelled_exc_class()

    def within(error: BaseException | None) -> list[BaseException]:
        if error is None:
            return []
        inner = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
        return [error, *(e for one in [*inner, error.__cause__] for e in within(one))]

    def answer(request: GenerationRequest) -> list[Step]:
        return [Fail(BackendError("bad"))] if request.messages[-1].content == "bad" else [Stall()]

    async with start_session(backend=ScriptedBackend(answer)) as m:
        failed, stopped = await m.ainstruct("bad"), await m.ainstruct("good")
        dependent = await m.aact(stopped)
        with pytest.raises(BackendError):
            await failed
        stopped.cancel()
        for thunk in (stopped, dependent):
            with pytest.raises(RunError) as caught:
                await thunk
            assert not any(isinstance(error, cancelled) for error in within(caught.value))
