"""``mellea-sc chat``: turns, what stops them, and what ends the conversation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, cast

import anyio
import anyio.lowlevel
import pytest
from click.testing import Result

from mellea_sc import ModelError
from mellea_sc.cli.chat import Interrupted, Prompt
from mellea_sc.cli.commands import Settings
from mellea_sc.cli.show import TerminalShow
from mellea_sc.core.backend import GenerationRequest
from mellea_sc.testing import Fail, Script, ScriptedBackend
from mellea_sc.testing.server import Answer, ModelServer, RecordedRequest

if TYPE_CHECKING:
    from tests.cli.conftest import Terminal

Invoke: TypeAlias = Callable[..., Result]
Spawn: TypeAlias = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedBackend]:
    """Have the model answer so, turn after turn."""

    def use(*scripts: Script | list[str] | str | Fail) -> ScriptedBackend:
        backend = ScriptedBackend(*scripts)
        monkeypatch.setattr("mellea_sc.cli.asking.make_backend", lambda *_, **__: backend)
        return backend

    return use


def _said(request: GenerationRequest) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in request.messages]


# --- lines from a pipe --------------------------------------------------------------------------


def test_each_line_is_a_turn_of_one_conversation(
    answers: Callable[..., ScriptedBackend], invoke: Invoke, loop: str
) -> None:
    backend = answers(["I am ", "well. "], "Rain.")
    done = invoke("chat", "--loop", loop, input="How are {{ you }}?\n\n  \nWhat comes?")
    assert (done.exit_code, done.stdout) == (0, "I am well. \nRain.\n")
    assert _said(backend.calls[1].request) == [
        ("user", "How are {{ you }}?"),
        ("assistant", "I am well. "),
        ("user", "What comes?"),
    ]
    assert done.stderr.count("complete, ") == 2
    assert "Ctrl-C" not in done.stderr  # nobody is there to be told


def test_a_turn_that_fails_a_check_is_not_kept_and_is_told_by_the_status(
    answers: Callable[..., ScriptedBackend], invoke: Invoke, loop: str
) -> None:
    backend = answers("One. Two.", "Three.", "Four.")
    done = invoke("chat", "--max-sentences", "1", "--loop", loop, input="a\nb\nc\n")
    assert (done.exit_code, done.stdout) == (1, "One.\nThree.\nFour.\n")
    assert "✗ at most 1 sentence" in done.stderr
    said = _said(backend.calls[2].request)
    assert [role for role, _ in said] == ["user", "assistant", "user"]
    assert said[1] == ("assistant", "Three.")


def test_an_answer_that_was_cut_off_is_told_by_the_status(
    answers: Callable[..., ScriptedBackend], invoke: Invoke
) -> None:
    answers(Script("It rains and", finish_reason="length"), "It rains.")
    done = invoke("chat", "--max-tokens", "3", input="a\nb\n")
    assert done.exit_code == 4
    assert "cut off by --max-tokens 3" in done.stderr


def test_quit_ends_it_before_the_end_of_the_input(
    answers: Callable[..., ScriptedBackend], invoke: Invoke, loop: str
) -> None:
    backend = answers("One.")
    done = invoke("chat", "--loop", loop, input="a\n/quit\nb\n")
    assert (done.exit_code, done.stdout, len(backend.calls)) == (0, "One.\n", 1)


def test_an_error_ends_it_where_nobody_is_there_to_go_on(
    answers: Callable[..., ScriptedBackend], invoke: Invoke, loop: str
) -> None:
    backend = answers("One.", Fail(ModelError("broken")), "Three.")
    done = invoke("chat", "--loop", loop, input="a\nb\nc\n")
    assert (done.exit_code, done.stdout, len(backend.calls)) == (3, "One.\n", 2)
    assert done.stderr.endswith("mellea-sc: broken\n")


def test_json_lines_hold_the_events_of_all_turns(
    answers: Callable[..., ScriptedBackend], invoke: Invoke
) -> None:
    answers("One.", "Two.")
    done = invoke("chat", "--json", input="a\nb\n")
    ends = [one for one in map(json.loads, done.stdout.splitlines()) if "full_text" in one]
    assert [one["full_text"] for one in ends if "outcome" in one] == ["One.", "Two."]
    assert done.stderr == ""


def test_ctrl_c_stops_the_answer_and_not_the_program(spawn: Spawn, loop: str) -> None:
    def script(request: RecordedRequest) -> Answer:
        is_first = b"first" in request.body
        return Answer(["It rains. ", "It pours. ", "Then"], stall_after=3 if is_first else None)

    with ModelServer.in_thread(script) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url, "--loop", loop]
        process = spawn("chat", *args, stdin=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("the first\n")
        process.stdin.flush()
        assert process.stdout.read(19) == "It rains. It pours."
        process.send_signal(signal.SIGINT)
        server.portal.call(server.requests[0].wait_closed)
        out, err = process.communicate("the second\n", timeout=60)
    assert server.requests[0].ended == "client_closed"
    assert "interrupted" in err
    assert out == "\nIt rains. It pours. Then\n"
    assert process.returncode == 0
    messages = server.requests[1].json["messages"]
    assert messages == [{"role": "user", "content": "the second"}]


# --- a person at a terminal ---------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\x04", "/quit\r"])
def test_a_person_is_prompted_and_ends_it(
    terminal: Callable[..., Terminal], loop: str, end: str
) -> None:
    with ModelServer.in_thread(Answer(["It rains. ", "It pours."])) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url, "--max-words", "9"]
        person = terminal("chat", *args, "--loop", loop)
        greeting = person.read_until("> ")
        assert "Ctrl-C stops an answer, Ctrl-D or /quit ends" in greeting
        person.write("Rain\x7f\x7fise\r")  # a line can be edited
        answered = person.read_until("> ")
        assert "It rains. It pours.\n  " in answered.rpartition("\x1b[?25h")[2]
        assert "valid" in answered
        person.write(end)
        person.read_until(None)
        assert person.process.wait(30) == 0
    assert server.requests[0].json["messages"] == [
        {"role": "user", "content": "Requirements:\n- at most 9 words\n\nRaise"}
    ]


def test_ctrl_c_stops_the_answer_and_a_second_one_at_the_prompt_ends_it(
    terminal: Callable[..., Terminal], loop: str
) -> None:
    with ModelServer.in_thread(Answer(["It rains. ", "It"], stall_after=2)) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url]
        person = terminal("chat", *args, "--loop", loop)
        person.read_until("> ")
        person.write("Go on\r")
        person.read_until("It rains.")
        person.interrupt()
        stopped = person.read_until("> ")
        assert "It rains." in stopped  # what was released is shown when the picture has gone
        assert "interrupted" in stopped
        person.interrupt()
        person.read_until(None)
        assert person.process.wait(30) == 130
    assert server.requests[0].ended == "client_closed"


def test_ctrl_c_at_the_prompt_drops_the_line_and_says_how_to_end(
    terminal: Callable[..., Terminal], loop: str
) -> None:
    with ModelServer.in_thread(Answer("It rains.")) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url]
        person = terminal("chat", *args, "--loop", loop)
        person.read_until("> ")
        person.write("dropped")
        person.read_until("dropped")
        person.interrupt()
        assert "Ctrl-C again, Ctrl-D or /quit ends" in person.read_until("> ")
        person.write("kept\r")
        assert "It rains." in person.read_until("complete")
        person.read_until("> ")
        person.interrupt()  # the first one again
        person.read_until("> ")
        person.interrupt()
        person.read_until(None)
        assert person.process.wait(30) == 130
    assert [one.json["messages"] for one in server.requests] == [
        [{"role": "user", "content": "kept"}]
    ]


def test_a_person_is_told_of_an_error_and_goes_on(
    terminal: Callable[..., Terminal], loop: str
) -> None:
    script = [Answer(status=500, error="out of memory"), Answer("It rains.")]
    with ModelServer.in_thread(script) as server:
        args = ["--backend", "ollama", "--base-url", server.ollama_url, "--retries", "0"]
        person = terminal("chat", *args, "--loop", loop)
        person.read_until("> ")
        person.write("a\r")
        person.read_until("mellea-sc: ")
        assert "out of memory" in person.read_until("> ")
        person.write("b\r")
        assert "It rains." in person.read_until("complete")
        person.read_until("> ")
        person.process.send_signal(signal.SIGTERM)
        person.read_until(None)
        assert person.process.wait(30) == 128 + signal.SIGTERM


# --- signals at the prompt ----------------------------------------------------------------------


class _Killed:
    """A standard input whose line does not come, but a signal does."""

    def __init__(self, number: int, *, line: str | None = None) -> None:
        self._number = number
        self._line = line

    def isatty(self) -> bool:
        return False

    def readline(self) -> str:
        os.kill(os.getpid(), self._number)
        assert self._line is not None, "the signal should have been raised"
        return self._line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_the_prompt_is_raised_there_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, loop: str, number: signal.Signals
) -> None:
    heard: list[int] = []

    async def main() -> None:
        async def listen(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            with anyio.open_signal_receiver(number) as signals:
                task_status.started()
                async for one in signals:
                    heard.append(one)
                    listening.cancel_scope.cancel()

        async with anyio.create_task_group() as listening:
            await listening.start(listen)
            monkeypatch.setattr("sys.stdin", _Killed(number))
            with pytest.raises(Interrupted) as interrupted:
                Prompt().read()
            assert interrupted.value.number == number
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert heard == []
            os.kill(os.getpid(), number)  # after it the loop hears of signals as before
            with anyio.fail_after(30):
                await anyio.sleep_forever()
        assert heard == [number]

    anyio.run(main, backend=loop)


def test_the_seconds_of_an_answer_do_not_include_what_a_person_took_to_write(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    now = 0.0
    monkeypatch.setattr("mellea_sc.cli.show.time.monotonic", lambda: now)
    show = TerminalShow([], cast("Settings", {"explain": False, "max_tokens": None}), brief=True)
    now = 60.0
    show.begin()
    show.end()
    assert "waiting for the first chunk  0.0 s" in capsys.readouterr().err
