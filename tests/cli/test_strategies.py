"""``mellea-sc run --strategy`` and ``--explain``: several attempts on one standard output."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeAlias

import pytest
from click.testing import Result

from mellea_sc.testing import ScriptedBackend

Invoke: TypeAlias = Callable[..., Result]

BAD = "Water rises. It is gas. It falls."
GOOD = "Water rises. It falls as rain. It flows."


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedBackend]:
    def give(*texts: str) -> ScriptedBackend:
        backend = ScriptedBackend(*texts)
        monkeypatch.setattr("mellea_sc.cli.asking.make_backend", lambda *_, **__: backend)
        return backend

    return give


@pytest.mark.parametrize("strategy", ["reject", "repair", "race"])
def test_text_that_another_attempt_replaces_is_not_on_standard_output(
    answers: Callable[..., ScriptedBackend], invoke: Invoke, loop: str, strategy: str
) -> None:
    answers(BAD, BAD, BAD, GOOD, GOOD, GOOD)
    attempts = ["--attempts", "6"]
    done = invoke(
        *("run", "x", "--must-not", "gas", "--strategy", strategy, *attempts, "--loop", loop)
    )
    assert (done.exit_code, done.stdout) == (0, f"{GOOD}\n")


def test_backtracking_goes_on_after_the_good_text(
    answers: Callable[..., ScriptedBackend], invoke: Invoke, loop: str
) -> None:
    backend = answers(BAD, " It falls as rain. It flows.")
    done = invoke("run", "x", "--must-not", "gas", "--strategy", "backtrack", "--loop", loop)
    assert (done.exit_code, done.stdout) == (0, f"{GOOD}\n")
    assert backend.calls[1].request.messages[-1].content == "Water rises."


def test_attempts_that_are_used_up_end_with_a_failed_check(
    answers: Callable[..., ScriptedBackend], invoke: Invoke, loop: str
) -> None:
    backend = answers(BAD, BAD)
    done = invoke(
        *("run", "x", "--must-not", "gas", "--strategy", "reject", "--attempts", "2"),
        *("--loop", loop),
    )
    assert (done.exit_code, done.stdout) == (1, "")
    assert "stopped by a failed check" in done.stderr
    backend.assert_exhausted()


def test_a_number_of_attempts_without_a_strategy_is_refused(
    answers: Callable[..., ScriptedBackend], invoke: Invoke
) -> None:
    answers(GOOD)
    done = invoke("run", "x", "--attempts", "2")
    assert done.exit_code == 2
    assert "--attempts goes with a --strategy" in done.stderr


def test_explain_tells_the_story_of_the_run(
    answers: Callable[..., ScriptedBackend], invoke: Invoke, loop: str
) -> None:
    answers(BAD, GOOD)
    asked = ("run", "x", "--must-not", "gas", "--strategy", "repair", "--max-tokens", "20")
    done = invoke(*asked, "--explain", "--loop", loop)
    assert "├─ attempt 1: failed" in done.stderr
    assert "because of requirement" in done.stderr
    assert "└─ attempt 2: accepted" in done.stderr
    assert "of a limit of 20 saved" in done.stderr


def test_explain_in_json_is_in_the_last_line(
    answers: Callable[..., ScriptedBackend], invoke: Invoke
) -> None:
    answers(BAD, GOOD)
    done = invoke("run", "x", "--must-not", "gas", "--strategy", "repair", "--explain", "--json")
    *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"].startswith("Ret")] == [
        "RetractEvent",
        "RetryEvent",
    ]
    assert [child["outcome"] for child in last["trace"]["children"]] == ["failed", "accepted"]
