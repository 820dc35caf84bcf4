"""``mellea-sc run``: what is printed where, and the exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from click.testing import Result

from mellea_sc import BackendError, EngineError, ModelError, ModelOption
from mellea_sc.backends import Usage
from mellea_sc.backends.local import Progress
from mellea_sc.backends.select import BACKEND_NAMES
from mellea_sc.cli.commands import BACKENDS
from mellea_sc.core.backend import GenerationRequest
from mellea_sc.testing import Fail, Script, ScriptedBackend
from mellea_sc.testing.server import Answer, ModelServer

if TYPE_CHECKING:
    from tests.cli.conftest import Terminal

Invoke: TypeAlias = Callable[..., Result]
Spawn: TypeAlias = Callable[..., "subprocess.Popen[str]"]

WATER = ["Water ", "rises. ", "It falls", " as rain.\n\n", "Then it ", "flows."]
TEXT = "".join(WATER)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedBackend:
    backend = ScriptedBackend(_answer, judge=lambda request: "rain" in _last(request))
    monkeypatch.setattr("mellea_sc.cli.asking.make_backend", lambda *_, **__: backend)
    return backend


def _answer(_: GenerationRequest) -> list[str]:
    return WATER


def _last(request: GenerationRequest) -> str:
    return request.messages[-1].content.partition("<requirement>")[2].partition("</req")[0]


# --- the text, and everything else -------------------------------------------------------------


def test_the_text_alone_is_on_standard_output_as_the_model_wrote_it(
    scripted: ScriptedBackend, invoke: Invoke, loop: str
) -> None:
    done = invoke("run", "the water cycle", "--max-sentences", "3", "--loop", loop)
    assert (done.exit_code, done.stdout) == (0, f"{TEXT}\n")
    assert "✓ at most 3 sentences" in done.stderr
    assert "valid, " in done.stderr
    assert "finish reason stop" in done.stderr
    assert "answer tokens" in done.stderr
    assert "\x1b" not in done.output


def test_a_failed_check_stops_the_text_and_says_which_and_where(
    scripted: ScriptedBackend, invoke: Invoke, loop: str
) -> None:
    done = invoke("run", "x", "--max-sentences", "1", "--loop", loop)
    assert (done.exit_code, done.stdout) == (1, "Water rises.\n")
    assert "✗ at most 1 sentence  ·✗  chunk 1: more than 1 sentence" in done.stderr
    assert "stopped by a failed check" in done.stderr


def test_what_must_not_be_there_is_not_shown(scripted: ScriptedBackend, invoke: Invoke) -> None:
    done = invoke(
        "run", "x", "--must-not", "snow", "--must-not", "falls as r", "--chunking", "none"
    )
    assert (done.exit_code, done.stdout) == (1, "Water rises. \n")
    assert "there is a match of 'falls as r'" in done.stderr


def test_a_requirement_in_words_is_judged_at_the_end(
    scripted: ScriptedBackend, invoke: Invoke
) -> None:
    done = invoke("run", "x", "--require", "speaks of rain", "--require", "speaks of snow")
    assert (done.exit_code, done.stdout) == (1, f"{TEXT}\n")
    assert "✓ speaks of rain" in done.stderr
    assert "✗ speaks of snow" in done.stderr
    assert "failed at the end" in done.stderr


def test_a_requirement_in_words_needs_a_model_that_can_judge(
    scripted: ScriptedBackend, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedBackend, "judges", False)
    done = invoke("run", "x", "--require", "speaks of rain")
    assert (done.exit_code, done.stdout) == (2, "")
    said = " ".join(done.stderr.split())
    assert "--require needs a model that can judge" in said
    assert "--backend ollama" in said
    assert scripted.calls == []
    assert invoke("run", "x", "--max-words", "30").exit_code == 0


def test_without_checks_the_text_is_just_streamed(
    scripted: ScriptedBackend, invoke: Invoke
) -> None:
    done = invoke("run", "x", "--chunking", "word")
    assert (done.exit_code, done.stdout) == (0, f"{TEXT}\n")
    assert "complete, " in done.stderr


def test_a_prompt_is_data_and_the_options_reach_the_backend(
    scripted: ScriptedBackend, invoke: Invoke
) -> None:
    given = ["--system", "be brief", "--max-tokens", "9", "--temperature", "0", "--seed", "7"]
    assert invoke("run", "{{ x }} {%", *given).exit_code == 0
    (call,) = scripted.calls
    assert call.prompt == "{{ x }} {%"
    assert call.request.messages[0].content == "be brief"
    assert {9, 0.0, 7} <= set(call.request.options.values())


def test_json_lines_hold_the_events_and_standard_output_nothing_else(
    scripted: ScriptedBackend, invoke: Invoke, loop: str
) -> None:
    done = invoke("run", "x", "--max-words", "30", "--require", "rain", "--json", "--loop", loop)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == [
        *["QuickCheckEvent", "ChunkEvent"] * 3,
        "StreamingDoneEvent",
        "FullValidationEvent",
        "CompletedEvent",
    ]
    assert next(e["text"] for e in events if e["event"] == "ChunkEvent") == "Water rises."
    assert events[0]["results"][0] == {
        "requirement": "at most 30 words",
        "success": "unknown",
        "reason": None,
        "score": None,
        "replacement": None,
        "cuts_off": False,
    }
    assert [verdict["result"] for verdict in events[-2]["results"]] == [True, True]
    assert events[-1]["valid"] is True
    assert events[-1]["full_text"] == TEXT
    assert events[-1]["generation"]["usage"]["completion_tokens"] == len(WATER)
    assert (done.exit_code, done.stderr) == (0, "")


def test_json_lines_say_what_has_failed(scripted: ScriptedBackend, invoke: Invoke) -> None:
    done = invoke("run", "x", "--max-sentences", "1", "--json")
    *_, check, completed = map(json.loads, done.stdout.splitlines())
    assert check["results"][0]["success"] == "fail"
    assert (completed["success"], completed["valid"], done.exit_code) == (False, False, 1)


def test_a_pattern_is_shown_as_the_user_gave_it(scripted: ScriptedBackend, invoke: Invoke) -> None:
    done = invoke("run", "x", "--must-not", r"\bfalls\b", "--explain", "--trace", os.devnull)
    assert r"no match of '\bfalls\b'" in done.stderr
    assert r"there is a match of '\bfalls\b'" in done.stderr
    assert r"\\b" not in done.stderr
    assert (
        r"mellea-sc: '\bga(' is not a regular" in invoke("run", "x", "--must-not", r"\bga(").stderr
    )


def test_a_judge_is_named_by_what_it_judges(scripted: ScriptedBackend, invoke: Invoke) -> None:
    done = invoke("run", "x", "--require", "speaks of rain", "--explain")
    assert "judge 'speaks of rain': answered" in done.stderr
    assert "CBlock" not in done.stderr


def test_there_is_one_total_of_time(
    scripted: ScriptedBackend, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Script(['{"answer": "yes", ', '"reason": "it does"}'], delay=0.05)
    backend = ScriptedBackend(WATER, judge)
    monkeypatch.setattr("mellea_sc.cli.asking.make_backend", lambda *_, **__: backend)
    done = invoke("run", "x", "--require", "speaks of rain", "--explain")
    total = re.findall(r"([0-9.]+) s in all", done.stderr)
    traced = re.findall(r"^x: accepted, ([0-9.]+) s", done.stderr, re.MULTILINE)
    assert total == traced
    assert float(total[0]) >= 0.05  # the judge's time is a part of it


def test_the_marks_of_the_picture_have_a_legend(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = ScriptedBackend(WATER, WATER)
    monkeypatch.setattr("mellea_sc.cli.asking.make_backend", lambda *_, **__: backend)
    args = ["--max-sentences", "2", "--strategy", "reject", "--attempts", "2"]
    done = invoke("run", "x", *args)
    assert "✗ at most 2 sentences  ✗↻✗" in done.stderr
    legend = next(line for line in done.stderr.splitlines() if "one mark for each chunk" in line)
    assert legend.strip() == "one mark for each chunk: ✗ failed, ↻ another attempt"


@pytest.mark.parametrize(
    ("reason", "given", "says"),
    [
        ("length", ["--max-tokens", "9"], "cut off by --max-tokens 9, "),
        ("length", [], "cut off by a limit of the model or its server, "),
        ("content_filter", ["--max-tokens", "9"], "cut off by the server's content filter, "),
    ],
)
def test_an_answer_that_was_cut_off_has_a_word_and_a_status(
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    loop: str,
    reason: str,
    given: list[str],
    says: str,
) -> None:
    backend = ScriptedBackend(lambda _: Script("It rains and", finish_reason=reason))
    monkeypatch.setattr("mellea_sc.cli.asking.make_backend", lambda *_, **__: backend)
    done = invoke("run", "x", *given, "--loop", loop)
    assert (done.exit_code, done.stdout) == (4, "It rains and\n")
    assert says in done.stderr
    assert "complete" not in done.stderr
    checked = invoke("run", "x", *given, "--max-words", "9", "--json")
    last = json.loads(checked.stdout.splitlines()[-1])
    assert (checked.exit_code, last["valid"]) == (4, False)
    assert last["outcome"] == says.removesuffix(", ")
    failed = invoke("run", "x", *given, "--require", "a", "--max-words", "2")
    assert failed.exit_code == 1  # a failed check says more


# --- wrong usage, wrong servers ----------------------------------------------------------------


def test_a_trace_is_written_as_a_page(
    scripted: ScriptedBackend, invoke: Invoke, tmp_path: Path
) -> None:
    page = tmp_path / "trace.html"
    result = invoke("run", "Go on.", "--must-not", "flows", "--trace", str(page))
    assert result.exit_code == 1
    assert "<svg" in page.read_text(encoding="utf-8")
    assert "attempt 1: failed" in page.read_text(encoding="utf-8")


def test_a_trace_that_cannot_be_written_is_wrong_usage(
    scripted: ScriptedBackend, invoke: Invoke, tmp_path: Path
) -> None:
    result = invoke("run", "Go on.", "--trace", str(tmp_path / "none" / "trace.html"))
    assert result.exit_code == 2
    assert "trace.html" in result.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--must-not", "("], "'(' is not a regular expression"),
        (["--max-sentences", "0"], "--max-sentences"),
        (["--chunking", "line"], "--chunking"),
        (["--timeout", "0"], "--timeout"),
        (["--api-key", "s3cret"], "No such option"),
        (["--backend", "openai"], "give --model, or set MELLEA_SC_MODEL"),
        (["--backend", "local", "--base-url", "http://x"], "no use for --base-url"),
        (["--backend", "ollama", "--base-url", "nonsense://x"], "base URL"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what(invoke: Invoke, args: list[str], says: str) -> None:
    done = invoke("run", "x", *args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_trio_is_wrong_usage(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mellea_sc.cli.ending.find_spec", lambda _: None)
    done = invoke("run", "x", "--loop", "trio")
    assert (done.exit_code, done.stderr) == (
        2,
        "mellea-sc: --loop trio needs trio: pip install 'mellea_sc[trio]'\n",
    )


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mellea_sc import cli

    monkeypatch.setattr(cli, "find_spec", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "pip install 'mellea_sc[cli]'" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_status_3(invoke: Invoke, loop: str) -> None:
    with ModelServer.in_thread(Answer()) as server:
        url = server.ollama_url
    done = invoke("run", "x", "--backend", "ollama", "--base-url", url, "--loop", loop)
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.splitlines()[-1].startswith("mellea-sc: cannot reach ollama at ")
    assert "ollama serve" in done.stderr


def test_a_model_that_is_not_there_is_status_3(invoke: Invoke) -> None:
    missing = Answer(status=404, error="model 'nope' not found")
    with ModelServer.in_thread(missing) as server:
        url = server.ollama_url
        done = invoke("run", "x", "--backend", "ollama", "--base-url", url, "--model", "nope")
    assert done.exit_code == 3
    assert "ollama pull nope" in done.stderr


@pytest.mark.parametrize(("retries", "status", "requests"), [("1", 0, 2), ("0", 3, 1)])
def test_a_busy_server_is_asked_again_and_that_is_said(
    spawn: Spawn, loop: str, retries: str, status: int, requests: int
) -> None:
    answers = [Answer(status=503, error="loading", retry_after=0.01), Answer("It rains.")]
    with ModelServer.in_thread(answers) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url, "--loop", loop]
        out, err = spawn("run", "x", *args, "--retries", retries).communicate(timeout=60)
    assert (out == "It rains.\n") == (status == 0)
    assert ("attempt 2 of 2 in" in err) == (requests == 2)
    assert "503 Service Unavailable: loading" in err
    assert len(server.requests) == requests


def test_an_error_in_the_middle_keeps_the_text_before_it(invoke: Invoke, loop: str) -> None:
    answer = Answer(["It rains. ", "It pours. ", "The"], error="out of memory", error_after=2)
    with ModelServer.in_thread(answer) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url, "--loop", loop]
        done = invoke("run", "x", *args)
    assert (done.exit_code, done.stdout) == (3, "It rains. It pours.\n")
    assert "out of memory" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500])
@pytest.mark.parametrize("backend", ["ollama", "openai"])
def test_errors_name_options_and_no_arguments_of_the_library(
    invoke: Invoke, backend: str, status: int
) -> None:
    with ModelServer.in_thread(Answer(status=status, error="no")) as server:
        url = server.ollama_url if backend == "ollama" else server.openai_url
        args = ["--backend", backend, "--base-url", url, "--model", "m", "--retries", "0"]
        refused = invoke("run", "x", *args)
    gone = invoke("run", "x", *args)
    assert (refused.exit_code, gone.exit_code) == (3, 3)
    for done in (refused, gone):
        words = r"model_id|base_url|api_key|headers=|verify=|retries=|ModelOption"
        assert re.findall(words, done.stderr) == []


def test_a_stalled_server_is_given_up_after_the_timeout(invoke: Invoke) -> None:
    with ModelServer.in_thread(Answer(["It rains. ", "It"], stall_after=1)) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url, "--timeout", "0.2"]
        done = invoke("run", "x", *args)
    assert (done.exit_code, done.stdout) == (3, "It rains.\n")
    assert "raise --timeout if" in done.stderr


@pytest.mark.parametrize("debug", [True, False])
def test_a_traceback_is_for_those_who_ask(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    backend = ScriptedBackend(Fail(ModelError("broken")), Fail(ZeroDivisionError("oh")))
    monkeypatch.setattr("mellea_sc.cli.asking.make_backend", lambda *_, **__: backend)
    for says in ("mellea-sc: broken", "mellea-sc: unexpected ZeroDivisionError: oh"):
        done = invoke("run", "x", *["--debug"] * debug)
        assert done.exit_code == 3
        assert ("Traceback" in done.stderr) is debug
        assert done.stderr.splitlines()[-1].startswith(says)


def test_several_errors_are_a_line_each(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    async def two(*_: object) -> int:
        raise ExceptionGroup("both", [BackendError("one"), BackendError("two")])

    monkeypatch.setattr("mellea_sc.cli.asking.run", two)
    done = invoke("run", "x")
    assert (done.exit_code, done.stderr) == (3, "mellea-sc: one\nmellea-sc: two\n")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_model_that_is_fetched_first_is_announced_once(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, loop: str, as_json: bool
) -> None:
    async def fetch(_: object, progress: Callable[[Progress], None]) -> Path:
        for done in (0, 1_000_000):
            progress(Progress("fetching", done, 93_000_000))
        raise EngineError("no network")

    monkeypatch.setattr("mellea_sc.backends.local.require_engine", lambda: None)
    monkeypatch.setattr("mellea_sc.backends.local.fetch", fetch)
    done = invoke("run", "x", "--backend", "local", "--loop", loop, *["--json"] * as_json)
    assert done.exit_code == 3
    assert done.stderr.count("mellea-sc: fetching the model (once), 93 MB\n") == 1
    assert done.stderr.endswith("mellea-sc: no network\n")


# --- a process of its own ----------------------------------------------------------------------


def test_the_command_over_a_real_socket(spawn: Spawn, loop: str) -> None:
    answer = Answer(WATER, usage=Usage(5, 6))
    with ModelServer.in_thread(answer) as server:
        env = {"OPENAI_BASE_URL": server.openai_url, "MELLEA_SC_MODEL": "test-model"}
        process = spawn(
            "run", "x", "--max-words", "50", "--backend", "openai", "--loop", loop, env=env
        )
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, f"{TEXT}\n")
    assert "5 prompt + 6 answer tokens" in err


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_closes_the_connection_and_keeps_what_was_released(
    spawn: Spawn, loop: str, number: signal.Signals, as_json: bool
) -> None:
    answer = Answer(["It rains. ", "It pours. ", "Then"], stall_after=3)
    with ModelServer.in_thread(answer) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url, "--loop", loop]
        process = spawn("run", "x", *args, *["--json"] * as_json)
        assert process.stdout is not None
        released = process.stdout.readline() if as_json else process.stdout.read(9)
        assert "It rains." in released
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        server.portal.call(server.requests[0].wait_closed)
    assert process.returncode == 128 + number
    assert server.requests[0].ended == "client_closed"
    assert "Traceback" not in err
    if as_json:
        assert json.loads(out.splitlines()[-1])["event"] == "CompletedEvent"
    else:
        assert out in ("\n", " It pours.\n")
        assert "interrupted" in err


def test_ctrl_c_while_the_server_says_nothing_yet(spawn: Spawn, loop: str) -> None:
    with ModelServer.in_thread(Answer("late", slow_headers=60)) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url, "--loop", loop]
        process = spawn("run", "x", *args)
        server.portal.call(server.wait_for, 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        server.portal.call(server.requests[0].wait_closed)
    assert (process.returncode, out) == (130, "")
    assert "interrupted" in err


def test_a_reader_that_goes_away_ends_the_command_quietly(spawn: Spawn, loop: str) -> None:
    with ModelServer.in_thread(Answer([f"Line {n}. " for n in range(9999)], delay=0.01)) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url, "--loop", loop]
        process = spawn("run", "x", *args)
        assert process.stdout is not None
        assert process.stdout.read(4) == "Line"
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(timeout=30)
    assert process.returncode == 141
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@pytest.mark.parametrize(
    "args",
    [
        ["run", "x", "--backend", "ollama", "--max-words", "9"],
        ["run", "x", "--backend", "openai"],
        ["run", "x", "--backend", "ollama", "--must-not", "("],
        ["doctor"],
        ["doctor", "--json"],
    ],
)
def test_whichever_output_nobody_reads_the_status_says_so(args: list[str], loop: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with ModelServer.in_thread(Answer("It rains.")) as server:
        done = subprocess.run(
            [sys.executable, "-m", "mellea_sc", *args, "--loop", loop],
            env={**os.environ, "OLLAMA_HOST": server.ollama_url},
            stdout=writing if args[0] == "doctor" else subprocess.DEVNULL,
            stderr=subprocess.PIPE if args[0] == "doctor" else writing,
            timeout=30,
        )
    os.close(writing)
    assert done.returncode == 141
    assert not done.stderr


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_a_closed_standard_stream_is_read_and_written_as_nothing(
    closed: list[int], loop: str
) -> None:
    closing = " ".join(f"{descriptor}>&-" for descriptor in closed)
    with ModelServer.in_thread(Answer("It rains.")) as server:
        args = ["run", "x", "--backend", "ollama", "--base-url", server.ollama_url, "--loop", loop]
        command = [sys.executable, "-m", "mellea_sc", *args]
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closing}', "sh", *command], capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("" if 1 in closed else "It rains.\n")
    assert ("complete" in done.stderr) == (2 not in closed)


def test_on_a_terminal_a_picture_of_several_characters_is_shown(
    terminal: Callable[..., Terminal], loop: str
) -> None:
    thumb = "\U0001f44d\U0001f3fd"
    with ModelServer.in_thread(Answer(["Fine ", thumb[0], thumb[1], " it is."])) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url, "--loop", loop]
        shown = terminal("run", "x", *args)
        seen = shown.read_until(None)
    assert shown.process.wait(30) == 0, seen
    assert f"Fine {thumb} it is.\n" in seen.rpartition("\x1b[?25h")[2]


def test_on_a_terminal_the_picture_goes_and_the_text_stays(
    terminal: Callable[..., Terminal], loop: str
) -> None:
    evil = ["It rains. ", "\x1b[2J\x07It ", "pours."]
    with ModelServer.in_thread(Answer(evil, delay=0.1)) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url, "--max-words", "9"]
        shown = terminal("run", "x", *args, "--loop", loop)
        seen = shown.read_until(None)
    assert shown.process.wait(30) == 0
    assert "generating" in seen
    assert "\x1b[2J" not in seen
    assert "\x07" not in seen
    after_the_picture = seen.rpartition("\x1b[?25h")[2]  # the cursor is shown again
    assert "It rains. [2JIt pours." in after_the_picture
    assert "at most 9 words" in after_the_picture
    assert "one mark for each chunk: · open, ✓ passed" in after_the_picture


@pytest.mark.parametrize("term", ["xterm", "dumb"])
@pytest.mark.parametrize("width", [40, 80])
def test_no_line_on_a_terminal_breaks_inside_a_word(
    terminal: Callable[..., Terminal], width: int, term: str
) -> None:
    text = [f"{'Rain' * (1 + number % 3)} falls on plain number {number}. " for number in range(9)]
    with ModelServer.in_thread(Answer(text)) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url, "--max-sentences", "7"]
        shown = terminal(
            *["run", "Tell me of the rain.", *args, "--must-not", r"\bgas\b", "--explain"],
            width=width,
            env={"TERM": term},
        )
        seen = shown.read_until(None).rpartition("\x1b[?25h")[2]
    assert shown.process.wait(30) == 1
    lines = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", seen).splitlines()
    assert [line for line in lines if len(line.rstrip()) > width] == []
    words = set(re.findall(r"\w+", " ".join(lines)))
    assert {"sentences", "requirement", "tokens", "released", "RainRainRain"} <= words


def test_an_error_on_a_terminal_breaks_between_words(terminal: Callable[..., Terminal]) -> None:
    shown = terminal("run", "x", "--backend", "local", "--model", "nope", width=40)
    seen = shown.read_until(None)
    assert shown.process.wait(30) == 2
    assert max(map(len, seen.splitlines())) <= 40
    assert {"SmolLM2-135M-Instruct", "'nope'", "ending"} <= set(seen.split())


def test_ctrl_c_while_the_library_is_imported_is_an_interruption(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mellea_sc.cli.ending.end_with", interrupt)
    assert invoke("run", "x").exit_code == 130


def test_help_and_version_need_neither_the_library_nor_rich() -> None:
    program = (
        "import sys; sys.argv = ['mellea-sc', sys.argv[1]]\n"
        "import atexit; atexit.register(lambda: print(sorted(\n"
        "    {m.split('.')[0] for m in sys.modules} & {'rich', 'anyio', 'httpx', 'attrs', 'trio'})))\n"
        "from mellea_sc.cli import main; main()"
    )
    for option, says in (("--help", "doctor"), ("--version", f"mellea-sc {version('mellea_sc')}")):
        done = subprocess.run(
            [sys.executable, "-c", program, option], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0
        assert says in done.stdout
        assert done.stdout.splitlines()[-1] == "[]"


def test_the_names_of_backends_are_those_of_the_library() -> None:
    assert BACKENDS == BACKEND_NAMES


@pytest.mark.parametrize(
    ("model", "given", "temperature"),
    [
        ("SmolLM2-135M-Instruct", [], 0.0),
        ("SmolLM2-135M-Instruct", ["--temperature", "0.7"], 0.7),
        ("SmolLM2-135M-Instruct", ["--strategy", "reject"], None),
        ("another", [], None),
    ],
)
def test_one_attempt_of_the_embedded_model_is_its_likeliest_answer(
    scripted: ScriptedBackend,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    given: list[str],
    temperature: float | None,
) -> None:
    monkeypatch.setattr(ScriptedBackend, "model_id", model)
    assert invoke("run", "x", *given).exit_code == 0
    assert scripted.calls[0].request.options.get(ModelOption.TEMPERATURE) == temperature


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("args", [["--help"], ["--version"], ["run", "--help"], ["doctor"]])
def test_output_that_cannot_be_written_is_one_line_and_a_status(args: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mellea_sc", *args],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr.startswith("mellea-sc: ")
    assert "No space left" in done.stderr
    assert done.stderr.count("\n") == 1
