"""What can go wrong between us and a server, told once, as the library's errors.

Nothing that the backend knows as a secret gets through: whatever a server says is scrubbed before it
is quoted, for servers do repeat what they were sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import quote

import attrs

from mellea_sc.backends.http.delays import BUSY, delay_in, is_temporary, status_in
from mellea_sc.backends.http.json_values import parse_object, value_or_text
from mellea_sc.core.errors import (
    BackendBusy,
    BackendError,
    BackendProtocolError,
    BackendRejected,
    BackendUnreachable,
    InvalidOption,
    ModelError,
    ModelNotFound,
    NotAuthorized,
    StreamInterrupted,
)

__all__ = ["Advice", "Failures", "Secret"]

_QUOTED: Final = 500
"""Characters of a server's words in an error's message."""
_KEPT: Final = 4000
"""Characters of a body that an error keeps."""


class Secret:
    """A text that is sent and never shown.

    Args:
        value: The text.
    """

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value: str = value

    def __repr__(self) -> str:
        return "<secret>"

    def remove_from(self, text: str) -> str:
        """The text with every occurrence of the secret, also in its usual encodings, blotted out."""
        escaped = json.dumps(self.value)[1:-1]
        for form in (self.value, quote(self.value, safe=""), escaped, escaped.replace("/", "\\/")):
            # A key such as "x", which servers without keys are given, hides nothing.
            if len(form) > 3:
                text = text.replace(form, "***")
        return text


@attrs.frozen
class Advice:
    """What to do about the failures that people meet most.

    Args:
        unreachable: Nobody answers there.
        no_model: The server does not have the model.
        no_path: There is a server, but not one that speaks the protocol at that address.
        no_key: It wants another key.
    """

    unreachable: str
    no_model: str
    no_path: str
    no_key: str


@attrs.frozen
class Failures:
    """Makes the errors of one backend.

    Args:
        server: Which server, for people: ``"ollama at http://127.0.0.1:11434"``.
        advice: What to do about them.
        secrets: What must not be in any of them.
    """

    server: str
    advice: Advice
    secrets: tuple[Secret, ...] = ()

    def clean(self, text: str) -> str:
        """The text without the secrets."""
        for secret in self.secrets:
            text = secret.remove_from(text)
        return text

    def quoted(self, text: str) -> str:
        """The text's beginning without the secrets, on one line, to stand in a message."""
        line = " ".join(self.clean(text).split())
        return line if len(line) <= _QUOTED else f"{line[:_QUOTED]}…"

    def unusable(self, reason: str) -> InvalidOption:
        """The request cannot even be made."""
        return InvalidOption(f"{self.server} cannot be asked: {self.quoted(reason)}")

    def unreachable(self, reason: str) -> BackendUnreachable:
        """There was no connection."""
        return BackendUnreachable(
            f"cannot reach {self.server}: {self.quoted(reason)}. {self.advice.unreachable}"
        )

    def not_http(self, reason: str) -> BackendProtocolError:
        """What came cannot be read."""
        return BackendProtocolError(
            f"{self.server} does not speak HTTP as it should: {self.quoted(reason)}"
        )

    def interrupted(self, reason: str) -> StreamInterrupted:
        """The answer ended before its last delta."""
        return StreamInterrupted(f"the answer of {self.server} was cut off: {self.quoted(reason)}")

    def malformed(self, text: str) -> BackendProtocolError:
        """A text that is not what the protocol says."""
        return BackendProtocolError(
            f"{self.server} sent something that is not part of an answer: {self.quoted(text)!r}"
        )

    def not_a_stream(self, media_type: str, wanted: str, body: str) -> BackendProtocolError:
        """A success, but not the kind of answer that was asked for."""
        kind = (
            f"an answer of type {media_type!r}"
            if media_type
            else "an answer without a content type"
        )
        return BackendProtocolError(
            f"{self.server} sent {self.clean(kind)} where a stream of {wanted} was asked for: "
            f"{self.quoted(body)!r}. {self.advice.no_path}"
        )

    def model(self, error: object) -> BackendError:
        """An error object inside the stream."""
        said = f"{self.server} reported an error: {self.quoted(_words_of(error))}"
        status = status_in(error)
        failure: BackendError = ModelError(said)
        if status is not None and is_temporary(status, {}, error):
            if status in BUSY:
                failure = BackendBusy(said, status=status)
            failure.retryable = True
            failure.retry_after = delay_in(status, {}, error)
        return failure

    def status(self, status: int, headers: Mapping[str, str], body: str) -> BackendError:
        """What an error status means."""
        answer = parse_object(body)
        words = self.quoted(body if answer is None else _words_of(answer))
        kept = self.clean(body)[:_KEPT]
        said = f"{self.server} answered {status}{_phrase(status)}{f': {words}' if words else ''}"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return NotAuthorized(f"{said}. {self.advice.no_key}", status=status, body=kept)
        came = value_or_text(body)
        if is_temporary(status, headers, came):
            seconds = delay_in(status, headers, came)
            wish = f" (it asks to wait for {seconds:g} s)" if seconds else ""
            kind = BackendBusy if status in BUSY else BackendRejected
            failure = kind(f"{said}{wish}", status=status, body=kept)
            failure.retryable, failure.retry_after = True, seconds
            return failure
        if status == HTTPStatus.NOT_FOUND:
            # A server that lacks the model says so in an error object; one that lacks the path
            # answers with a page, or with an object that does not speak of models.
            if answer is not None and "model" in body.lower():
                return ModelNotFound(f"{said}. {self.advice.no_model}", status=status, body=kept)
            return BackendRejected(f"{said}. {self.advice.no_path}", status=status, body=kept)
        if 300 <= status < 400:
            target = self.quoted(headers.get("location", "elsewhere"))
            return BackendRejected(f"{said} (it redirects to {target})", status=status, body=kept)
        return BackendRejected(said, status=status, body=kept)


def _words_of(error: object) -> str:
    """The words in an error object, whichever of the usual shapes it has."""
    if isinstance(error, dict):
        fields = cast("dict[str, object]", error)
        for key in ("error", "message", "detail"):
            if fields.get(key):
                return _words_of(fields[key])
        return json.dumps(fields)
    return str(error)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
