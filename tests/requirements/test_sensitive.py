"""Secrets and personal data: nothing of them is shown, and what replaces them is all that is changed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirement_help import edited, marks, passes, pieces_of, streamed

from mellea_sc import (
    InvalidOption,
    MustNotMatch,
    NoPII,
    NoSecrets,
    PartialValidationResult,
    Requirement,
)
from mellea_sc.stdlib.requirements.watching import Found, WindowWatch
from mellea_sc.testing import run_virtual
from mellea_sc.testing.strategies import cuts

PEM = "\n".join(
    (
        "-----BEGIN RSA PRIVATE KEY-----",
        *(["MIIEpAIBAAKCAQEA1c7+9z5Pad7OejecsQ0buabcdefr"] * 30),
        "-----END RSA PRIVATE KEY-----",
    )
)
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
SECRETS = [
    (PEM, "private key"),
    (PEM.replace("RSA ", ""), "private key"),
    (PEM.replace("RSA ", "OPENSSH "), "private key"),
    (JWT, "token"),
    ("Bearer abc123.def-456_ghi789", "token"),
    ("AKIA" + "IOSFODNN7EXAMPLE", "API key"),
    ("AIza" + "Sy-0123456789abcdefghijklmnopqrstuv", "API key"),
    ("ghp_" + "a1B2" * 9, "API key"),
    ("github_pat_" + "11ABC_" * 12, "API key"),
    ("glpat-" + "abcDEF123_-456789xyz", "API key"),
    ("xoxb-" + "123456789012-abcDEF", "API key"),
    ("sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc", "API key"),
    ("sk-" + "proj-" + "aB3_" * 60, "API key"),
    ("hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH", "API key"),
]
PII = [
    ("jane.doe+news@mail.example.co.uk", "e-mail"),
    ("größe@firma.de", "e-mail"),
    ("+49 (0)30 1234567", "phone"),
    ("(212) 555-0123", "phone"),
    ("0171 2345678", "phone"),
    ("030 / 123456", "phone"),
    ("4111 1111 1111 1111", "credit card"),
    ("378282246310005", "credit card"),
    ("DE89 3704 0044 0532 0130 00", "IBAN"),
    ("GB82WEST12345698765432", "IBAN"),
    ("192.168.0.1", "IP address"),
]
HARMLESS = [
    "The bearer of bad news, and bearer bonds. ",
    "risk-averse, task-oriented, sk-learn and other words-with-many-hyphens-in-them. ",
    "On 2024-11-24 at 12:30, 1000000 people paid 3.14159 each. ",
    "Version 1.2.3.4.5 of v1.2.3.4, 300.1.1.1 is none. ",
    "4111 1111 1111 1112 has another checksum, DE88370400440532013000 too. ",
    "me @ home, a@b, 10 000 000 000 stars. ",
    "12345678901234567890123456789012345678901234567890 digits. ",
    "京都は日本の都市です。",
    "-----BEGIN CERTIFICATE----- is public. ",
]


def texts_with(things: list[tuple[str, str]]) -> st.SearchStrategy[list[tuple[str, str]]]:
    """A text in parts, and what each should read after redaction."""
    thing = st.sampled_from([(f"{said}\n", f"[{label}]\n") for said, label in things]) | (
        st.sampled_from([(f"({said}), ", f"([{label}]), ") for said, label in things])
    )
    harmless = st.sampled_from([(said, said) for said in HARMLESS])
    return st.lists(thing | harmless, max_size=6)


@pytest.mark.parametrize(("make", "things"), [(NoSecrets, SECRETS), (NoPII, PII)])
@given(data=st.data())
def test_redacted_is_all_of_each_thing_and_nothing_else(
    make: type[NoSecrets | NoPII], things: list[tuple[str, str]], data: st.DataObject
) -> None:
    parts = data.draw(texts_with(things))
    text, redacted = ("".join(said) for said in zip(*parts, strict=True)) if parts else ("", "")
    deltas = data.draw(cuts(text))
    assert edited(make(), deltas, "fix") == redacted
    assert marks(make(), deltas) == marks(make(), [text])
    assert run_virtual(passes, make(), text) == (text == redacted)
    assert run_virtual(passes, make(), redacted)


@pytest.mark.parametrize(("make", "things"), [(NoSecrets, SECRETS), (NoPII, PII)])
@given(
    data=st.data(),
    chunking=st.sampled_from(["sentence", "word", None]),
    loop=st.sampled_from(["asyncio", "trio"]),
)
def test_no_character_of_one_is_released(
    make: type[NoSecrets | NoPII],
    things: list[tuple[str, str]],
    data: st.DataObject,
    chunking: str | None,
    loop: str,
) -> None:
    said, label = data.draw(st.sampled_from(things))
    text = f"All is well, and here it is: {said}. That was it."
    deltas = data.draw(cuts(text, max_deltas=12))
    result = run_virtual(streamed, make(), deltas, chunking, backend=loop)
    assert not result.completed
    assert text[: text.index(said)].startswith(result.full_text)
    [(_, verdict)] = result.streaming_failures
    assert verdict.reason == f"there is something that looks like this: {label}"


@pytest.mark.parametrize(
    ("requirement", "things"), [(NoSecrets(), SECRETS), (NoPII(), PII)], ids=["secrets", "pii"]
)
def test_prose_is_released_a_word_late_at_most(
    requirement: Requirement, things: list[tuple[str, str]]
) -> None:
    del things
    assert requirement.chunking is not None
    assert not isinstance(requirement.chunking, str)
    watch = requirement.chunking.fresh()
    text = "the volcano erupts, and all of the people who live there have to leave "
    passed = ""
    for at, char in enumerate(text):
        passed += "".join(watch.feed(char))
        assert text[: at + 1].startswith(passed)
        assert at - len(passed) < 16


def test_some_kinds_only_and_another_replacement() -> None:
    text = "jane@example.com has 192.168.0.1 "
    assert edited(NoPII(["ipv4"]), [text], "fix") == "jane@example.com has [IP address] "
    assert edited(NoPII(["email"], replacement="…"), [text], "fix") == "… has 192.168.0.1 "
    assert edited(NoPII(), [text], "filter") == " has  "
    assert edited(NoSecrets(["jwt"]), [f"{JWT} {SECRETS[5][0]}"], "fix").startswith("[token] AKIA")


@pytest.mark.parametrize("kinds", [[], ["name"], "email", ["email", 3]])
def test_another_kind_is_refused(kinds: object) -> None:
    with pytest.raises(InvalidOption, match="kinds must be some of"):
        NoPII(kinds)
    with pytest.raises(InvalidOption, match="kinds must be some of"):
        NoSecrets(kinds)


@pytest.mark.anyio
async def test_a_reason_never_quotes() -> None:
    for make, things in ((NoSecrets, SECRETS), (NoPII, PII)):
        for said, label in things:
            requirement = make()
            pieces = [p for p in pieces_of(requirement, [said]) if p.verdict.success == "fail"]
            told = repr([piece.verdict for piece in pieces]) + requirement.format_for_llm()
            assert label in told
            assert not any(part in told for part in (said, said[:12], said[-12:]))


# --- a match that is longer than its window ---------------------------------------------------------------


@given(st.integers(0, 3000), st.data())
def test_a_match_that_fills_its_window_fails_to_its_end(length: int, data: st.DataObject) -> None:
    text = f"the key={'k' * length} is here"
    requirement = MustNotMatch(r"key=\w+", window=12, replacement="<key>")
    deltas = data.draw(cuts(text, max_deltas=30))
    redacted = text if not length else "the <key> is here"
    assert edited(requirement, deltas, "fix") == redacted
    assert marks(requirement, deltas) == marks(requirement, [text])
    if length >= 8:  # it fails with its window, not with its end
        assert len(next(p for p in pieces_of(requirement, deltas) if p.startswith("key"))) == 12


def test_the_work_on_a_match_without_an_end_does_not_grow() -> None:
    looked_at = 0

    def find(text: str, at: int, end: int) -> Found | None:
        nonlocal looked_at
        looked_at += min(end, len(text)) - at
        match = re.compile(r"key=\w+").match(text, at, end)
        return match and Found(match.end(), PartialValidationResult("fail"))

    watch = WindowWatch(find, 12)
    watch.feed("key=")
    for _ in range(30_000):
        watch.feed("abcd")
        assert len(watch._known) + watch._length < 400_000
    assert looked_at < 20 * 120_000


def test_two_matches_in_a_row_are_replaced_one_by_one() -> None:
    assert edited(MustNotMatch("secret"), list("a secretsecret!"), "fix") == "a […][…]!"
    assert edited(MustNotMatch("secret", replacement=""), ["secret"], "fix") == ""
    assert edited(MustNotMatch(r"\d+"), list("1234 and 5"), "fix") == "[…] and […]"
