"""Secrets and personal data: nothing of them is shown, and what replaces them is all that is changed."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirement_help import edited, marks, passes, pieces_of, streamed

from mellea_sc import (
    InvalidOption,
    MissingExtra,
    MustNotMatch,
    NoPII,
    NoSecrets,
    PartialValidationResult,
    Requirement,
)
from mellea_sc.stdlib.requirements.expressions.expression import Expression
from mellea_sc.stdlib.requirements.expressions.scanners import MatchScanner
from mellea_sc.stdlib.requirements.sensitive import PIIKind
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
    ("GOCSPX-" + "a1b2c3d4e5f6g7h8i9j0k1l2m3n4", "API key"),
    ("gsk_" + "a1b2C3" * 9, "API key"),
    ("ABSK" + "QmVkcm9ja0" * 12 + "=", "API key"),
    ("nvapi-" + "a1B2-c3_D4" * 6 + "e5F6", "API key"),
    ("lsv2_pt_" + "0123456789abcdef" * 2 + "_" + "0123456789", "API key"),
    ("tvly-" + "dev-" + "a1B2c3D4" * 4, "API key"),
    ("sb_secret_" + "a1B2c3D4e5F6g7H8i9J0kL_mN0pQ1rS", "API key"),
    ("xai-" + "a1b2C3d4" * 10, "API key"),
    ("123456789:" + "AAHexampleExampleExampleExampleExam", "API key"),
    ("Basic " + "YW5uOmh1bnRlcjJQYXNz", "password"),
    ("hooks.slack.com/services/" + "T00000000/B00000000/" + "X" * 24, "webhook"),
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
    ("2001:db8:85a3::8a2e:370:7334", "IP address"),
    ("536-90-4399", "social security number"),
    ("11010519491231002X", "national number"),
    ("+44\u00a020\u00a07946\u00a00958", "phone"),
    ("212\u2011555\u20110147", "phone"),
    ("+44 20 7946\u20130958", "phone"),
    ("1-800-555-0147", "phone"),
    ("06.39.98.12.34", "phone"),
    ("0 532 123 45 67", "phone"),
    ("0 (532) 123 45 67", "phone"),
    ("4012\u202f8888\u202f8888\u202f1881", "credit card"),
    ("3782 822463 10005", "credit card"),
    ("gb82 west 1234 5698 7654 32", "IBAN"),
    ("eve\u200b@example.org", "e-mail"),
    ("(415) 555-2000", "phone"),
    ("0033 6 12 34 56 78", "phone"),
    ("0812-3456-7890", "phone"),
    ("::ffff:192.0.2.128", "IP address"),
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
    "The years 2011 2012 2013 2014, due on 07-11-2024 or 07 11 2024. ",
    "A row: 2345 6789 1234 5678 9012, rows 400 500-6000, id 20240917000002. ",
    "The id is 7d444840-9dc0-11d1-b245-5ffdc0c28e10, it was 1712345678901 in milliseconds. ",
    "Call it 50 000 000, or 1234000. 值为Version 1.2.3.4。",
    "SN 0123-4567-8901. ",
    "The mask is 255.255.255.0, chapter 2.3.4.5, +11 12 13 14 degrees. ",
    "sk-estimator__toggle-label-content, sk-this-slug-is-made-of-many-words. ",
    "The Basic plan costs nothing. Basic authentication is old. ",
    "postgres://db.example.com:5432/users, https://user:password@example.com/ as a form. ",
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


ADJACENT = [
    ("请写信给{}。谢谢\uff01", "li@example.com", "e-mail"),
    ("写信到 {}谢谢大家。", "li@example.com", "e-mail"),
    ("\uff08{}\uff09", "li@example.com", "e-mail"),
    ("메일은{}입니다.", "park@example.net", "e-mail"),
    ("电话{}。", "+442079460958", "phone"),
    ("卡号{}。", "4111111111111111", "credit card"),
    ("__{}__ is it.", "AKIA" + "IOSFODNN7EXAMPLE", "API key"),
    ("_{}_ is it.", "sk-ant-" + "api03-a1b2c3d4e5f6g7h8i9j0-XyZ", "API key"),
    ('"\\n{}\\n"', "AKIA" + "IOSFODNN7EXAMPLE", "API key"),
    (
        "aws_secret_access_key = {} it is",
        "wJalrXUtnFEMI/" + "K7MDENG/bPxRfiCYEXAMPLEKEY",
        "API key",
    ),
    ("手机 {}。", "13912345000", "phone"),
    ("手机{}。", "138 0013 8000", "phone"),
    ("ll\u00e1mame al {} hoy", "612 34 56 78", "phone"),
    ("SĐT: {} ạ", "0912345678", "phone"),
    ("연락처 {}입니다", "01012345678", "phone"),
    ("رقم الهاتف {}،", "0501234567", "phone"),
    ("โทร{}ครับ", "๐๘๑๒๓๔๕๖๗๘", "phone"),
    ("postgres://ann:{}@db.example.com/x it is", "hunter2" + "Pass", "password"),
    ("redis://:{}@db.example.com/x it is", "p@ssw0rd" + "Zz", "password"),
]


@pytest.mark.parametrize(("frame", "said", "label"), ADJACENT)
def test_what_stands_beside_it_hides_nothing_and_stays(frame: str, said: str, label: str) -> None:
    text = frame.format(said)
    requirement = NoPII(on_fail="fix") if label in dict(map(reversed, PII)) else NoSecrets()
    assert edited(requirement, list(text), "fix") == frame.format(f"[{label}]")
    assert edited(requirement, [text], "fix") == frame.format(f"[{label}]")


DIGITS = sorted(
    char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.decimal(char, None) == 0
)


@pytest.mark.parametrize("zero", DIGITS)
def test_the_digits_of_no_script_hide_a_number(zero: str) -> None:
    written = str.maketrans({str(n): chr(ord(zero) + n) for n in range(10)})
    for said, label in (
        ("4111 1111 1111 1111", "credit card"),
        ("081-234-5678", "phone"),
        ("+66 81 234 5678", "phone"),
        ("192.168.1.17", "IP address"),
    ):
        text = f"It is {said.translate(written)} here."
        assert edited(NoPII(), list(text), "fix") == f"It is [{label}] here."
        assert edited(NoPII(), [text], "fix") == f"It is [{label}] here."


ONE, TWO = "MIIEvAIBADANBgkqhkiG9w0BAQEFAASC", "q9fEx4mpl3Ex4mpl3Ex4mpl3Ex4mpl3E"
QUOTED = [
    "{b}\n{one}\n{two}\n{e}",
    "{b}\r\n{one}\r\n{two}\r\n{e}",
    '{b}\\n"\n       "{one}\\n"\n       "{two}\\n"\n       "{e}',
    "{b}\\n{one}\\n{two}\\n{e}",
    "{b}\n> {one}\n> {two}\n> {e}",
    "{b} |\n| {one} |\n| {two} |\n| {e}",
    "{b}<br>{one}<br>{two}<br>{e}",
    "{b}\n 2 | {one}\n 3 | {two}\n 4 | {e}",
    "{b}\n+{one}\n+{two}\n+{e}",
    "{b}\n# {one}\n# {two}\n# {e}",
    "{b}`\n`{one}`\n`{two}`\n`{e}",
    "{b}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF\n\n{one}\n{two}\n{e}",
    "{b}\n{one}\n{two}\nab==",
]


@pytest.mark.parametrize("form", QUOTED)
@given(data=st.data())
def test_a_private_key_is_one_span_however_it_is_quoted(form: str, data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(["RSA PRIVATE KEY", "PRIVATE KEY"]))
    key = form.format(b=f"-----BEGIN {label}-----", e=f"-----END {label}-----", one=ONE, two=TWO)
    text = f"Here: {key}\nKeep it safe. Bye."
    deltas = data.draw(cuts(text))
    assert edited(NoSecrets(), deltas, "fix") == "Here: [private key]\nKeep it safe. Bye."
    assert marks(NoSecrets(), deltas) == marks(NoSecrets(), [text])


NASTY = [
    *(
        "AKIA",
        "IOSFODNN7EXAMPLE",
        "-----BEGIN ",
        "PRIVATE KEY-----",
        "-----END ",
        "\n",
        "\\n",
        " ",
        "  ",
    ),
    *(
        "\u200b",
        "\u00a0",
        "4111 1111 1111 1111",
        "+49 30 ",
        "1234567",
        "@",
        "example.org",
        "eve",
        "DE89 ",
    ),
    *(
        "3704 0044 0532 0130 00",
        "AB ",
        "12 34 56 C",
        "中",
        "。",
        "Bearer ",
        "basic ",
        "abc123def456ghi789",
    ),
    *(
        "sk-",
        "eyJhbGciOiJIUzI1NiJ9",
        ".",
        "://",
        "a:b@c.d",
        "::1",
        "2001:db8::",
        "(",
        ")",
        "-",
        "/",
        ";",
    ),
    *("aB3_" * 20, "x" * 140, "1" * 30, "1 " * 20, ONE, "> ", "| ", "<br>", "é"),
]


@pytest.mark.parametrize("make", [NoSecrets, NoPII])
@given(data=st.data())
def test_what_is_found_in_anything_does_not_depend_on_cuts(
    make: type[NoSecrets | NoPII], data: st.DataObject
) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(NASTY), max_size=30)))
    expected = marks(make(), [text])
    assert marks(make(), data.draw(cuts(text, max_deltas=40))) == expected
    assert marks(make(), list(text)) == expected


def test_phones_of_some_regions_only() -> None:
    text = "030 / 123456 or 090-1234-5678 or +81 90 1234 5678."
    assert edited(NoPII(phone_regions=["DE"]), [text], "fix") == (
        "[phone] or 090-1234-5678 or [phone]."
    )
    assert edited(NoPII(phone_regions=[]), [text], "fix") == (
        "030 / 123456 or 090-1234-5678 or [phone]."
    )
    for regions in (["Germany"], "DE"):
        with pytest.raises(InvalidOption, match="phone_regions must be"):
            NoPII(phone_regions=regions)


@pytest.mark.parametrize(
    ("kinds", "module"),
    [(None, "stdnum.iban"), (["phone"], "phonenumbers"), (["credit_card"], "stdnum.luhn")],
)
def test_a_kind_without_its_package_says_which_extra_has_it(
    kinds: list[PIIKind] | None, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"mellea_sc\[detect\]"):
        NoPII(kinds)
    assert NoPII(["email", "ipv4", "ipv6"])


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

    class Counting:
        """A pattern that counts the characters that it is handed."""

        def match(self, text: str, at: int, end: int, *, timeout: float) -> re.Match[str] | None:
            nonlocal looked_at
            looked_at += end - at
            return re.compile(r"key=\w+").match(text, at, end)

    fails = PartialValidationResult("fail")
    watch = MatchScanner(Expression(r"key=\w+", Counting()), 12, fails)
    watch.feed("key=")
    for _ in range(30_000):
        watch.feed("abcd")
        assert len(watch._known) + watch._length < 400_000
    assert looked_at < 20 * 120_000


def test_two_matches_in_a_row_are_replaced_one_by_one() -> None:
    assert edited(MustNotMatch("secret"), list("a secretsecret!"), "fix") == "a […][…]!"
    assert edited(MustNotMatch("secret", replacement=""), ["secret"], "fix") == ""
    assert edited(MustNotMatch(r"\d+"), list("1234 and 5"), "fix") == "[…] and […]"
