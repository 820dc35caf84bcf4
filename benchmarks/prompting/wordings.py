"""The wordings that are compared: functions from what is to be said to the messages that say it.

The first of each table is what the library said before anything was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mellea_sc.backends.local import SYSTEM_PROMPT
from mellea_sc.core.backend import ChatMessage

__all__ = ["ASKING", "GOING_ON", "REPAIRING", "SYSTEMS", "TURNING", "Messages", "listed"]

Messages = Sequence[ChatMessage]


def listed(lines: Sequence[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def _user(text: str) -> Messages:
    return [ChatMessage("user", text)]


def _system(rules: str, text: str) -> Messages:
    return [ChatMessage("system", f"{SYSTEM_PROMPT}\n\n{rules}"), ChatMessage("user", text)]


Asking = Callable[[str, Sequence[str]], Messages]

ASKING: dict[str, Asking] = {
    "“The answer must meet these requirements:” after the task": lambda task, rules: _user(
        f"{task}\n\nThe answer must meet these requirements:\n{listed(rules)}"
    ),
    "“Requirements:” after the task": lambda task, rules: _user(
        f"{task}\n\nRequirements:\n{listed(rules)}"
    ),
    "“Requirements:” before the task": lambda task, rules: _user(
        f"Requirements:\n{listed(rules)}\n\n{task}"
    ),
    "“Requirements:” before “Task:”": lambda task, rules: _user(
        f"Requirements:\n{listed(rules)}\n\nTask: {task}"
    ),
    "“Requirements:” in the system prompt": lambda task, rules: _system(
        f"Requirements:\n{listed(rules)}", task
    ),
    "“Your answers meet these requirements:” in the system prompt": lambda task, rules: _system(
        f"Your answers meet these requirements:\n{listed(rules)}", task
    ),
    "in brackets after the task": lambda task, rules: _user(f"{task} ({'; '.join(rules)})"),
    "in brackets before the task": lambda task, rules: _user(f"({'; '.join(rules)}) {task}"),
    "“Keep to this:” before the task": lambda task, rules: _user(
        f"Keep to this:\n{listed(rules)}\n\n{task}"
    ),
    "no requirement is said": lambda task, _: _user(task),
}
"""Of a task and its requirements."""

SYSTEMS = {
    "“… You answer correctly and to the point.”": (
        "You are a helpful assistant. You answer correctly and to the point."
    ),
    "“… You answer correctly and fully.”": (
        "You are a helpful assistant. You answer correctly and fully."
    ),
    "“… You answer correctly.”": "You are a helpful assistant. You answer correctly.",
    "“You are a helpful assistant.”": "You are a helpful assistant.",
    "what the model's makers say": (
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    ),
}
"""What is said as system prompt where the user says nothing."""


def _in_list(asked: str, before: str, why: Sequence[str]) -> Messages:
    rules, task = asked.split("\n\n", 1)
    return _user("\n".join([rules, *(f"- {before}{one}" for one in why), "", task]))


Repairing = Callable[[str, Sequence[str]], Messages]

REPAIRING: dict[str, Repairing] = {
    "“An earlier answer to this was rejected, because:” after": lambda asked, why: _user(
        f"{asked}\n\nAn earlier answer to this was rejected, because:\n{listed(why)}\n"
        "Do not make that mistake."
    ),
    "“An earlier answer was rejected, because:” before": lambda asked, why: _user(
        f"An earlier answer was rejected, because:\n{listed(why)}\n\n{asked}"
    ),
    "“Avoid:” after": lambda asked, why: _user(f"{asked}\n\nAvoid:\n{listed(why)}"),
    "“Avoid:” before": lambda asked, why: _user(f"Avoid:\n{listed(why)}\n\n{asked}"),
    "in the list of requirements, as “not again:”": lambda asked, why: _in_list(
        asked, "not again: ", why
    ),
    "“Remember:” before": lambda asked, why: _user(f"Remember:\n{listed(why)}\n\n{asked}"),
    "“Remember:” between the requirements and the task": lambda asked, why: _user(
        f"\n\nRemember:\n{listed(why)}\n\n".join(asked.split("\n\n", 1))
    ),
    "in the list of requirements, as “an earlier answer failed by this:”": lambda asked, why: (
        _in_list(asked, "an earlier answer failed by this: ", why)
    ),
    "in the list of requirements, as they are": lambda asked, why: _in_list(asked, "", why),
    "“Avoid:” in the system prompt": lambda asked, why: _system(f"Avoid:\n{listed(why)}", asked),
    "nothing is said": lambda asked, _: _user(asked),
}
"""Of what was asked, and why the answer to it was rejected."""

Turning = Callable[[str, str, Sequence[str]], Messages]


def _turn(asked: str, answer: str, said: str) -> Messages:
    return [*_user(asked), ChatMessage("assistant", answer), *_user(said)]


TURNING: dict[str, Turning] = {
    "“Your answer was rejected, because:”": lambda asked, answer, why: _turn(
        asked,
        answer,
        f"Your answer was rejected, because:\n{listed(why)}\nGive another one that meets all of this.",
    ),
    "“Try again. Avoid:”": lambda asked, answer, why: _turn(
        asked, answer, f"Try again. Avoid:\n{listed(why)}"
    ),
    "“Avoid:” and the task again": lambda asked, answer, why: _turn(
        asked, answer, f"Avoid:\n{listed(why)}\n\n{asked}"
    ),
    "“What was wrong with this answer:” and the task again": lambda asked, answer, why: _turn(
        asked, answer, f"What was wrong with this answer:\n{listed(why)}\n\n{asked}"
    ),
    "“Remember:” and the task again": lambda asked, answer, why: _turn(
        asked, answer, f"Remember:\n{listed(why)}\n\n{asked}"
    ),
    "the task again": lambda asked, answer, _: _turn(asked, answer, asked),
}
"""Of what was asked, the answer, and why it was rejected."""

GoingOn = Callable[[str, str], Messages]


def _last_words(text: str) -> str:
    return " ".join(text.split()[-8:])


GOING_ON: dict[str, GoingOn] = {
    "“Go on exactly where it ends”": lambda asked, begun: _turn(
        asked,
        begun,
        "Your answer so far is good. Go on exactly where it ends, and repeat nothing of it. "
        "Write only what comes next.",
    ),
    "“Continue.”": lambda asked, begun: _turn(asked, begun, "Continue."),
    "“Continue your answer.”": lambda asked, begun: _turn(asked, begun, "Continue your answer."),
    "“Tell me more.”": lambda asked, begun: _turn(asked, begun, "Tell me more."),
    "“Write the next sentence.”": lambda asked, begun: _turn(
        asked, begun, "Write the next sentence."
    ),
    "“Continue after …” with the last words": lambda asked, begun: _turn(
        asked, begun, f"Continue your answer after “{_last_words(begun)}”"
    ),
    "“Begin your answer with …”": lambda asked, begun: _user(
        f"{asked}\n\nBegin your answer with: {begun}"
    ),
    "“The answer begins like this; write the rest”": lambda asked, begun: _user(
        f"{asked}\n\nThe answer begins like this; write only the rest of it:\n\n{begun}"
    ),
    "prefilled, where the server can": lambda asked, begun: [
        *_user(asked),
        ChatMessage("assistant", begun),
    ],
}
"""Of what was asked, and the beginning of the answer."""
