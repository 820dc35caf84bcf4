"""A judge's answer is read where it is clear, in whatever way models say it, and nowhere else."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc.core.judgement import default_output_to_bool, read_judgement

YES = [
    "Yes.",
    "yes",
    "**Yes**",
    "- Yes",
    "> yes",
    '"Yes"',
    "\u2705 Yes",
    "YES - the text is polite",
    "Yes: it is",
    "Yes, no doubt about it.",
    "Yes the text is polite",
    "Yes\nThe text is polite.",
    "Yes, but the tone is a little cool.",
    "Yes, it uses {name} well.",
    "Yes. The text meets the requirement.",
    "Answer: yes",
    "**Answer:** Yes",
    "The answer is yes because it is polite.",
    "Final verdict: **Yes**",
    "The text thanks the reader.\n\nYes.",
    "It greets and it thanks. So, yes.",
    "The final answer is \\boxed{yes}.",
    "The answer is no longer than 3 sentences.\nYes.",
    '{"answer":"yes","reason":"ok"}',
    '{"answer": "Yes.", "reason": ""}',
    '```\n{"answer":"yes","reason":"x"}\n```\n',
    'Here it is:\n```json\n{"answer":"yes","reason":"x"}\n```\nI hope this helps.',
    '<think>No? Well.</think>\n{"answer":"yes","reason":"x"}',
    "so it is polite</think>Yes",
]
NO = [
    "no, it is not",
    "No!",
    "**No**, because it is rude.",
    "No it is not polite",
    "No, it only partly meets the requirement.",
    "No, the text does not meet the requirement.",
    "Answer - No",
    "Is it polite? Yes. Is it short? No. Answer: no",
    "The text insults the reader. Therefore, no.",
    "Verdict: No, it is rude",
    '```json\n{"answer":"no","reason":"x"}\n```',
    'The text is rude, so: {"answer":"no","reason":"rude"}',
    "<think>yes, perhaps</think>No.",
    '<think>\n{"answer":"yes"}\n</think>\n```json\n{"answer":"no","reason":"x"}\n```',
    "<reasoning>It thanks. Yes!</reasoning> **No**",
]
UNCLEAR = [
    "",
    "Perhaps.",
    "Nope",
    "Yesterday",
    "No-one is insulted.",
    "No doubt it is polite.",
    "No problem found.",
    "No. 5 is rude",
    "Yes and no.",
    "Yes/No",
    "yes or no",
    "No/Yes?",
    "Yes?",
    "Yes, no.",
    "Yes (and no)",
    "yes\nno",
    "1. No\n2. Yes",
    "Polite: no\nShort: yes",
    "Yes. Well, no.",
    "Is it polite? Yes. Is it short? No.",
    "I cannot say yes or no.",
    "The answer is neither yes nor no.",
    "The answer is no longer than 3 sentences.",
    "Answer: Yes or No",
    "Answer: yes/no",
    "If it thanks the answer is yes. The answer is no.",
    "Yes, mostly.",
    "Yes, if you overlook the insult.",
    "Yes, not really.",
    "Answer: yes, unless you count the insult",
    "Yes, it does not meet the requirement.",
    "No, it meets the requirement.",
    '{"answer":"no","answer":"yes"}',
    '{"answer":"yes","reason":"x","answer":"no"}',
    '{"answer":"yes"} {"answer":"no"}',
    'No. {"answer":"yes","reason":"x"}',
    '{"answer": "yes"',
    '{"answer": true}',
    '{"answer": "perhaps"} yes',
    'Yes. That is: {"answer": "no", "reas',
    '["yes"]',
    "[yes]",
    "<think>yes</think>",
    "<think>It is polite. Yes.",
    "Yes. <think>Or is it",
    "[" * 3000,
    '{"a":' * 3000,
]


@pytest.mark.parametrize(
    ("answer", "verdict"), [*((one, True) for one in YES), *((one, False) for one in NO)]
)
def test_a_clear_answer_is_read(answer: str, verdict: bool) -> None:
    assert default_output_to_bool(answer) is verdict


@pytest.mark.parametrize("answer", UNCLEAR)
def test_an_unclear_answer_is_never_a_verdict(answer: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        default_output_to_bool(answer)


@given(
    st.sampled_from([*((one, True) for one in YES), *((one, False) for one in NO)]),
    st.text(max_size=30).filter(lambda text: "<" not in text),
)
def test_thoughts_before_an_answer_change_nothing(case: tuple[str, bool], thought: str) -> None:
    answer, verdict = case
    assert default_output_to_bool(f"<think>{thought}</think>\n{answer}") is verdict


@given(st.sampled_from([True, False]), st.text(max_size=40), st.sampled_from(["", "json", "JSON"]))
def test_an_object_is_read_whatever_its_reason_and_its_fence(
    verdict: bool, reason: str, fence: str
) -> None:
    said = json.dumps({"answer": "yes" if verdict else "no", "reason": reason})
    if "```" not in reason:
        assert read_judgement(said) == (verdict, reason or None)
        assert read_judgement(f"```{fence}\n{said}\n```") == (verdict, reason or None)


WORDS = st.sampled_from(
    [
        *(
            "yes",
            "no",
            "Yes",
            "No",
            "or",
            "and",
            "/",
            ".",
            ",",
            "?",
            "\n",
            " ",
            " ",
            "the answer is",
        ),
        *(
            "Answer:",
            "{",
            "}",
            '"answer"',
            ":",
            '"yes"',
            '"no"',
            "```",
            "<think>",
            "</think>",
            "it",
        ),
        *(
            "meets the requirement",
            "does not meet it",
            "because",
            "**",
            "so,",
            "\\boxed{",
            "[",
            "]",
        ),
    ]
)


@given(st.lists(WORDS, max_size=14).map("".join))
def test_any_answer_is_a_verdict_or_a_value_error(answer: str) -> None:
    try:
        assert default_output_to_bool(answer) in (True, False)
    except ValueError:
        return
    assert ("yes" if default_output_to_bool(answer) else "no") in answer.lower()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Yes", None),
        ("no: too long", "too long"),
        ("The answer is no because it is rude.", "because it is rude."),
        ("The text is rude.\n\n**Verdict: No**", "The text is rude."),
        ('{"answer": "no"}', None),
        ('{"answer": "no", "reason": 7}', None),
    ],
)
def test_the_reason_is_what_is_said_after_the_verdict_or_before_it(
    answer: str, reason: str | None
) -> None:
    assert read_judgement(answer)[1] == reason


@pytest.mark.parametrize(
    "part",
    [
        "{x",
        "<think>",
        "yes ",
        "Answer: ",
        "`",
        " ",
        "\n",
        "no. ",
        '{"a":1}',
        "it meets ",
        "( ",
        "-",
    ],
)
def test_the_work_is_linear(part: str) -> None:
    answer = "Yes. " + part * (1_000_000 // len(part))
    began = time.process_time()
    with contextlib.suppress(ValueError):
        default_output_to_bool(answer)
    assert time.process_time() - began < 20  # tenths of a second; a quadratic reading takes hours
