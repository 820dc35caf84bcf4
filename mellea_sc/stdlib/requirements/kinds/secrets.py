r"""Secrets: keys by the patterns that their services document, tokens, and passwords by their context.

A key's prefix alone is not specific if its body could be words, as in ``sk-top-container``. Then the body must also
look random.

A private key in a PEM block is base64 in lines, between a first and a last line. In a string literal, a block quote, a
table, a list, a diff, a comment or a web page, there are other characters around each line, and lines may be separated
by ``\n`` or ``<br>``. So the text after a first line is read as runs of base64 with such *trimmings* between them, until
the last line, or until a text that is neither.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Final

from mellea_sc.stdlib.requirements.kinds.regions import (
    CONTEXT,
    UNSEEN,
    Kind,
    Places,
    following,
    matching,
)

# A word ends at characters that are not printable ASCII, and at those that are in no URL and no key.
_CUT: Final = rf"[^ !-~{UNSEEN}]|(?<!---)[ ]|[\"<>{{}}`|\\^]"
_CHARS: Final = rf"[!#-;=?-Z\[\]_a-z~{UNSEEN}]*+"
SECRET_PLACES: Final = Places(
    trigger=re.compile(
        rf"[\w./+=~-]{{16}}|(?:bearer|basic)[ \t]|-{{3,5}}[ ]?BEGIN|://|(?<=[!-~])[{UNSEEN}](?=[!-~])",
        re.ASCII | re.IGNORECASE,
    ),
    cut=re.compile(_CUT, re.ASCII),
    region=re.compile(
        rf"{_CHARS}(?:(?:(?<=bearer)|(?<=basic))[ \t]{{0,4}}{_CHARS}"
        rf"|(?<=---|KEY|RSA|DSA|PGP|ANY)[ ]?{_CHARS}|(?<=EC)[ ]?{_CHARS}|(?<=SSH2)[ ]?{_CHARS}"
        rf"|(?<=BEGIN)[ ]?{_CHARS}|(?<=PRIVATE|OPENSSH)[ ]?{_CHARS}|(?<=ENCRYPTED)[ ]?{_CHARS})*",
        re.ASCII | re.IGNORECASE,
    ),
    joint=re.compile(r"\Z"),
)

# A key begins after anything but a letter or digit, and also after a \n in a string of code.
_BEGINS: Final = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
_KEYS: Final = r"""
    (?:(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])                   # AWS
      | AIza[A-Za-z0-9_-]{35} | GOCSPX-[A-Za-z0-9_-]{20,}                   # Google
      | ya29\.[A-Za-z0-9_-]{20,} | 1//0[A-Za-z0-9_-]{30,}
      | gh[opsur]_[A-Za-z0-9]{30,} | github_pat_[A-Za-z0-9_]{30,}           # GitHub
      | gl(?:pat|ptt|dt|rt|cbt|soat|ft|imt|agent)-(?=[a-zA-Z_.-]*\d)[A-Za-z0-9_.-]{16,}   # GitLab
      | xox[abeoprs]-[A-Za-z0-9-]{10,} | xapp-[0-9]-[A-Za-z0-9-]{10,}       # Slack
      | (?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,} | whsec_[A-Za-z0-9+/]{20,}   # Stripe
      | gsk_[A-Za-z0-9]{40,} | xai-[A-Za-z0-9]{60,} | pplx-[A-Za-z0-9]{40,}    # Groq, xAI, Perplexity
      | hf_[A-Za-z0-9]{30,} | r8_[A-Za-z0-9]{36,}                           # Hugging Face, Replicate
      | npm_[A-Za-z0-9]{30,} | pypi-AgE[A-Za-z0-9_-]{30,} | rubygems_[a-f0-9]{40,}  # package indexes
      | dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}                                 # Docker
      | SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}                          # SendGrid
      | (?:AC|SK)[0-9a-f]{32}(?![A-Za-z0-9])                                # Twilio
      | do[opr]_v1_[0-9a-f]{40,} | shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}       # DigitalOcean, Shopify
      | \d{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])                       # Telegram
      | dapi[0-9a-f]{32} | key-[0-9a-f]{32}(?![A-Za-z0-9]) | [0-9a-f]{32}-us\d{1,2}(?![A-Za-z0-9])
      | sq0(?:atp|csp)-[A-Za-z0-9_-]{20,} | NRAK-[A-Z0-9]{27} | PMAK-[A-Za-z0-9]{20,}-[A-Za-z0-9]{20,}
      | hv[sbr]\.[A-Za-z0-9_-]{20,} | gl(?:sa|c)_[A-Za-z0-9+/=_]{30,} | lin_api_[A-Za-z0-9]{30,}
      | ntn_[A-Za-z0-9]{40,} | figd_[A-Za-z0-9_-]{30,} | sbp_[a-f0-9]{40} | ATATT3[A-Za-z0-9_=-]{40,}
      | AGE-SECRET-KEY-1[A-Z0-9]{50,} | pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.-]{30,}
    )"""
_GUESSED: Final = re.compile(_BEGINS + r"sk-[A-Za-z0-9_-]{20,}")  # OpenAI, Anthropic, …
_AWS_SECRET: Final = re.compile(r"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
_SAYS_AWS_SECRET: Final = re.compile(
    r"""(?:aws.{0,20}secret|secret[_ -]?(?:access[_ -]?)?key)[a-z_]{0,8}["'\]`*]{0,3}"""
    r"""(?:[ \t]*(?::|=>|=|,|\||\bis\b)){0,2}[ \t]*["'`*]{0,3}\Z""",
    re.IGNORECASE,
)
_JWT: Final = rf"""
    {_BEGINS} eyJ[A-Za-z0-9_-]{{10,}} (?: (?:\.[A-Za-z0-9_-]+){{1,4}} | (?<=[A-Za-z0-9_-]{{150}}) )"""
_BEARER: Final = rf"{_BEGINS}bearer[ \t]{{1,4}}(?P<body>[A-Za-z0-9._~+/-]{{16,}}=*)"
_BASIC: Final = rf"{_BEGINS}basic[ \t]{{1,4}}(?P<body>[A-Za-z0-9+/_-]{{6,}}={{0,2}})(?![A-Za-z0-9])"
_URL_PASSWORD: Final = r"""
    [a-z][a-z0-9+.-]{1,20}://[^\s/@:?\#"'<>]{0,64}:(?P<it>[^\s/"'<>]{1,128})@(?=[\w\[.-])"""
_PLACEHOLDER: Final = re.compile(
    r"\$.*|%.?s?|\[.*|\(.*|[*.x_-]+|(?:your|my|the|db|user)?[_-]?(?:passw(?:or)?d?|pwd|secret|token|pw)",
    re.IGNORECASE,
)
_WEBHOOK: Final = r"""
    hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/_-]{20,}
    | discord(?:app)?\.com/api/webhooks/\d{10,}/[A-Za-z0-9_-]{40,}
    | [a-z0-9-]+\.webhook\.office\.com/webhookb2/[A-Za-z0-9@/_-]{40,}"""


def looks_random(body: str, least: int = 12) -> bool:
    """Whether enough of a key's body is random: neither words nor numbers."""
    parts = re.split(r"[-_.~+/]", body)
    random = sum(len(part) for part in parts if _is_mixed(part))
    return random >= max(least, len(body) // 3)


def _is_mixed(part: str) -> bool:
    digits = sum(char.isdigit() for char in part)
    if digits == len(part):
        return False
    if digits:
        return (
            not re.fullmatch(r"[A-Z]?[a-z]+\d{1,4}|\d{1,2}[a-z]{1,2}|v?\d+", part) or len(part) > 16
        )
    return len(part) > 8 and not re.fullmatch(
        r"[A-Z]?(?:[a-z]+|[A-Z]+)|(?:[A-Z]?[a-z]{2,}){1,5}", part
    )


def _is_aws_secret(match: re.Match[str]) -> bool:
    at = match.start()
    name = _SAYS_AWS_SECRET.search(match.string, max(0, at - CONTEXT), at)
    return name is not None and any(char.isdigit() for char in match[0])


def _is_key(match: re.Match[str]) -> bool:
    return looks_random(match[0][3:])


def _is_token(match: re.Match[str]) -> bool:
    return re.search(r"[0-9][A-Za-z]|[A-Za-z][0-9]", match["body"]) is not None


def _is_credentials(match: re.Match[str]) -> bool:
    """Whether a match is a user name, a colon and a password in base64."""
    body = match["body"].rstrip("=").replace("-", "+").replace("_", "/")
    try:
        decoded = base64.b64decode(body + "=" * (-len(body) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return False
    return ":" in decoded and decoded.isprintable()


def _is_password(match: re.Match[str]) -> bool:
    return _PLACEHOLDER.fullmatch(match["it"]) is None


_find_known: Final = matching(re.compile(_BEGINS + _KEYS, re.VERBOSE))
_find_guessed: Final = matching(_GUESSED, _is_key)


def _find_api_keys(text: str, start: int, end: int) -> Iterable[tuple[int, int]]:
    for find in (_find_known, _find_guessed):
        for first, last in find(text, start, end):
            if text[first - 1 : first] == "_":  # Markdown's emphasis
                last = first + len(text[first:last].rstrip("_"))
            yield first, last


# --- private keys in PEM blocks, in any quotation -------------------------------------------------

FIRST_LINE: Final = re.compile(
    r"-{3,5}[ ]?BEGIN[ ](?:[A-Z0-9]+[ ]){0,3}PRIVATE[ ]KEY(?:[ ]BLOCK)?(?:[ ]?-{3,5})?"
)

LONG: Final = 16
"""The minimum length of a run of letters and digits that is base64 and not a word."""

TRIMMINGS: Final = 120
"""The maximum length of the trimmings between two runs."""

DASHES_AND_SPACE: Final = 6

_TRIMMING: Final = r"""(?: \\[nrt] | <br\s*/?> | </?[a-z]{1,6}> | &(?:gt|quot|lt|\#\d{1,4}); | -(?!---)
    | [\s>|\#*"'`,()\[\]{};:._~\\] | [+/](?=[\s"'+/]) | (?<=[\n|>])[+](?=\S) | \d{1,5}(?=[\s|:.)]) )"""
_LAST_LINE: Final = (
    r"-{3,5}[ ]?END[ ](?:[A-Z0-9]+[ ]){0,3}PRIVATE[ ]KEY(?:[ ]BLOCK)?(?:[ ]?-{3,5})?"
)
_HEADER: Final = r"(?:Proc-Type|DEK-Info|Version|Comment|Hash|Charset|MessageID):[^\n\\\"<|]{0,100}"
_STEP: Final = re.compile(
    rf"{_TRIMMING}{{0,{TRIMMINGS}}}+(?:(?P<last>{_LAST_LINE})|(?P<head>{_HEADER})|(?P<run>[A-Za-z0-9+/=]+))?",
    re.VERBOSE,
)
_REST_OF_RUN: Final = re.compile(r"[A-Za-z0-9+/=]*")
_LAST: Final = re.compile(rf"{_TRIMMING}{{0,{TRIMMINGS}}}+{_LAST_LINE}", re.VERBOSE)
_LINE_END: Final = re.compile(r"""[ \t]*(?:[\r\n"'`|\\]|<br|\Z)""")
_LOOKS_RANDOM: Final = re.compile(r"=\Z|[0-9+/]|[a-z][A-Z]|[A-Z]{2}[a-z]")
_ENOUGH: Final = TRIMMINGS + 80


def follow_pem(text: str, at: int, ended: bool) -> tuple[int, bool]:
    """Follow a private key, see ``Follow``."""
    if text[at - 1] != "-" and (rest := _REST_OF_RUN.match(text, at)):
        at = rest.end()
    while True:
        if at == len(text):
            return at, not ended
        step = _STEP.match(text, at)
        if step is None:
            return at, False
        known = len(text) - step.end() >= _ENOUGH or ended
        if step["last"] is not None:
            is_whole = known or len(text) - step.end() > DASHES_AND_SPACE
            return (step.end(), False) if is_whole else (at, True)
        if step["head"] is not None:
            if not known:
                return at, True
        elif step["run"] is None:
            return at, not known and step.end() - at < TRIMMINGS
        elif len(step["run"]) < LONG:
            if not known:
                return at, True
            if not _is_body(text, step):
                return at, False
        at = step.end()


def _is_body(text: str, step: re.Match[str]) -> bool:
    """Whether a short run belongs to the key."""
    if _LAST.match(text, step.end()):
        return True
    return bool(_LOOKS_RANDOM.search(step["run"]) and _LINE_END.match(text, step.end()))


_KEY_GOES_ON: Final = following(re.compile(r"[A-Za-z0-9_.~+/=-]*"))

SECRETS: Final[Mapping[str, Kind]] = {
    "private_key": Kind("private key", matching(FIRST_LINE), follow_pem, always=True),
    "jwt": Kind("token", matching(re.compile(_JWT, re.VERBOSE)), _KEY_GOES_ON),
    "bearer": Kind("token", matching(re.compile(_BEARER, re.IGNORECASE), _is_token), _KEY_GOES_ON),
    "basic_auth": Kind(
        "password", matching(re.compile(_BASIC, re.IGNORECASE), _is_credentials), _KEY_GOES_ON
    ),
    "webhook": Kind(
        "webhook", matching(re.compile(_WEBHOOK, re.VERBOSE | re.IGNORECASE)), _KEY_GOES_ON
    ),
    "api_key": Kind("API key", _find_api_keys, _KEY_GOES_ON),
    "aws_secret": Kind("API key", matching(_AWS_SECRET, _is_aws_secret)),
    "url_password": Kind(
        "password", matching(re.compile(_URL_PASSWORD, re.VERBOSE | re.IGNORECASE), _is_password)
    ),
}
