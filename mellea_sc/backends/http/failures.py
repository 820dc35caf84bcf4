"""Makes the library's errors for all failures between a backend and its server.

The errors contain no secret that the backend knows: servers repeat what they were sent, so their texts are cleaned
before they are quoted. They contain no control characters for terminals either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import attrs

from mellea_sc.backends.http.json_values import fields_of, list_of, value_or_text
from mellea_sc.backends.http.refusals import (
    BUSY,
    delay_in,
    is_temporary,
    status_in,
    subject_of,
    words_of,
)
from mellea_sc.core.errors import (
    BackendBusy,
    BackendError,
    BackendProtocolError,
    BackendRejected,
    BackendUnreachable,
    ContextTooLong,
    InvalidOption,
    ModelError,
    ModelNotFound,
    NotAuthorized,
    StreamInterrupted,
)
from mellea_sc.core.plain_text import harmless

_QUOTED: Final = 500
"""The maximum of characters that an error's message quotes."""
_KEPT: Final = 4000
"""The maximum of characters of a body that an error keeps."""


class Secret:
    """A text that may be sent, but never be shown.

    Args:
        value: The text.
    """

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value: str = value

    def __repr__(self) -> str:
        return "<secret>"

    def remove_from(self, text: str) -> str:
        """The text with every occurrence of the secret masked, also in its usual encodings."""
        escaped = json.dumps(self.value)[1:-1]
        for form in (self.value, quote(self.value, safe=""), escaped, escaped.replace("/", "\\/")):
            # A short key such as "x", which users give to servers without keys, is no secret, and masking it
            # would make texts unreadable.
            if len(form) > 3:
                text = text.replace(form, "***")
        return text


@attrs.frozen
class Advice:
    """Advice for the most frequent failures.

    Args:
        unreachable: For a server that does not answer.
        no_model: For a server that does not have the model.
        no_path: For a server that does not speak the protocol at that address.
        no_key: For a missing or wrong key.
    """

    unreachable: str
    no_model: str
    no_path: str
    no_key: str


@attrs.frozen
class Failures:
    """Makes the errors of one backend.

    Args:
        server: The server, for people: ``"ollama at http://127.0.0.1:11434"``.
        advice: Advice for frequent failures.
        secrets: Secrets that no error may contain.
        proxy: The proxy before the server, for people: ``"the proxy of HTTPS_PROXY"``.
    """

    server: str
    advice: Advice
    secrets: tuple[Secret, ...] = ()
    proxy: str | None = None

    def through(self, proxy: str, secrets: tuple[Secret, ...]) -> Failures:
        """The same for connections through a proxy."""
        return attrs.evolve(self, secrets=self.secrets + secrets, proxy=proxy)

    def clean(self, text: str) -> str:
        """The text without the secrets and without control characters for terminals."""
        text = harmless(text)
        for secret in self.secrets:
            text = secret.remove_from(text)
        return text

    def quoted(self, text: str) -> str:
        """The beginning of the text, cleaned and on one line, for a message."""
        line = " ".join(self.clean(text).split())
        return line if len(line) <= _QUOTED else f"{line[:_QUOTED]}…"

    def unusable(self, reason: str) -> InvalidOption:
        """The request cannot be made at all."""
        return InvalidOption(f"{self.server} cannot be asked: {self.quoted(reason)}")

    def unreachable(self, reason: str) -> BackendUnreachable:
        """There was no connection."""
        if self.proxy is None:
            return BackendUnreachable(
                f"cannot reach {self.server}: {self.quoted(reason)}. {self.advice.unreachable}"
            )
        return BackendUnreachable(
            f"cannot reach {self.server} through {self.proxy}: {self.quoted(reason)}. Is that the proxy to go "
            "through? NO_PROXY names the servers that are reached without one.",
            fault="proxy",
        )

    def untrusted(self, reason: str) -> BackendUnreachable:
        """Its certificate was not accepted."""
        return BackendUnreachable(
            f"the certificate of {self.server} is not trusted: {self.quoted(reason)}. If it is the right server, "
            "give the file of the certificate that its own is signed with as verify=, or in SSL_CERT_FILE.",
            fault="certificate",
        )

    def not_encrypted(self, reason: str) -> BackendUnreachable:
        """TLS could not be spoken, for another reason than the server's certificate."""
        return BackendUnreachable(
            f"{self.server} and we found no way to encrypt (TLS): {self.quoted(reason)}. It may be one for http:// "
            "and not https://, or want a certificate of its clients: verify= takes an ssl.SSLContext with one.",
            fault="certificate",
        )

    def not_taken(self, reason: str, size: int) -> StreamInterrupted:
        """The connection was lost while a large request was being sent."""
        return StreamInterrupted(
            f"the connection to {self.server} was lost while a request of {size / 1e6:.1f} MB was sent: "
            f"{self.quoted(reason)}. It, or a proxy before it, may take none that is so large."
        )

    def not_http(self, reason: str) -> BackendProtocolError:
        """The response is not valid HTTP."""
        return BackendProtocolError(
            f"{self.server} does not speak HTTP as it should: {self.quoted(reason)}"
        )

    def interrupted(self, reason: str) -> StreamInterrupted:
        """The answer ended before its last delta."""
        return StreamInterrupted(f"the answer of {self.server} was cut off: {self.quoted(reason)}")

    def malformed(self, text: str) -> BackendProtocolError:
        """A text does not follow the protocol."""
        return BackendProtocolError(
            f"{self.server} sent something that is not part of an answer: {self.quoted(text)!r}"
        )

    def not_a_stream(self, media_type: str, wanted: str, body: str) -> BackendProtocolError:
        """A successful response that is not a stream."""
        kind = (
            f"an answer of type {media_type!r}"
            if media_type
            else "an answer without a content type"
        )
        return BackendProtocolError(
            f"{self.server} sent {self.clean(kind)} where a stream of {wanted} was asked for: "
            f"{self.quoted(body)!r}. {self.advice.no_path}"
        )

    def endless(self, limit: int) -> BackendProtocolError:
        """An answer that is not a stream, and does not end."""
        return BackendProtocolError(
            f"{self.server} sent an answer longer than {limit:,} bytes. {self.advice.no_path}"
        )

    def no_list(self, answer: object) -> BackendProtocolError:
        """An answer, with a good status, that is not the list of the server's models."""
        return BackendProtocolError(
            f"{self.server} did not list its models, but said: {self.quoted(words_of(answer))}. {self.advice.no_path}"
        )

    def model(self, error: object, event: object = None) -> BackendError:
        """An error inside the stream.

        Args:
            error: The error: an object or a text.
            event: The object that the error is in, which may have the status or the words.
        """
        is_object = bool(fields_of(error) or list_of(error))
        words = self.quoted(words_of(error if is_object or event is None else event))
        said = f"{self.server} reported an error: {words}"
        status = status_in(error) or status_in(event)
        if subject_of(error) == "context":
            status = status or HTTPStatus.BAD_REQUEST
            return ContextTooLong(_advised(said, _SHORTEN), status=status, body=words)
        failure: BackendError = ModelError(said)
        if status is not None and is_temporary(status, {}, error):
            if status in BUSY:
                failure = BackendBusy(said, status=status)
            failure.retryable = True
            failure.retry_after = delay_in(status, {}, error)
        return failure

    def status(self, status: int, headers: Mapping[str, str], body: str) -> BackendError:
        """The error for a response with an error status."""
        answer = value_or_text(body)
        words = self.quoted(words_of(answer))
        kept = self.clean(body)[:_KEPT]
        said = f"{self.server} answered {status}{_phrase(status)}{f': {words}' if words else ''}"
        kind, advice = self._meaning(status, headers, answer)
        if kind is BackendRejected and is_temporary(status, headers, answer):
            seconds = delay_in(status, headers, answer)
            wish = f" (it asks to wait for {seconds:g} s)" if seconds else ""
            kind = BackendBusy if status in BUSY else BackendRejected
            failure = kind(f"{said}{wish}", status=status, body=kept)
            failure.retryable, failure.retry_after = True, seconds
            return failure
        return kind(_advised(said, advice), status=status, body=kept)

    def _meaning(
        self, status: int, headers: Mapping[str, str], answer: object
    ) -> tuple[type[BackendRejected], str]:
        """The class of the error for a refusal, and advice; decided by the status, or else by the server's text."""
        is_page = isinstance(answer, str) and answer.lstrip().startswith("<")
        subject = subject_of(answer) if status in _AMBIGUOUS and not is_page else "other"
        match status, subject:
            case _, "context":
                return ContextTooLong, _SHORTEN
            case _, "model" if status != HTTPStatus.INTERNAL_SERVER_ERROR:
                return ModelNotFound, self.advice.no_model
            case (HTTPStatus.BAD_REQUEST, "key") | (
                HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN,
                _,
            ):
                return NotAuthorized, self.advice.no_key
            case HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, _:
                where = self.proxy or "the proxy"
                return NotAuthorized, f"Put user and password into the URL of {where}."
            case ((HTTPStatus.NOT_FOUND | HTTPStatus.METHOD_NOT_ALLOWED), _):
                return BackendRejected, self.advice.no_path
            case HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _:
                return BackendRejected, "The request is too large for it, or for a proxy before it."
            case _ if 300 <= status < 400:
                target = self.quoted(headers.get("location", "elsewhere"))
                return BackendRejected, f"It redirects to {target}."
            case _:
                return BackendRejected, ""


def _advised(said: str, advice: str) -> str:
    return f"{said.rstrip('.')}. {advice}" if advice else said


_AMBIGUOUS: Final = (400, 403, 404, 413, 422, 500)
"""Statuses whose meaning depends on the body."""
_SHORTEN: Final = (
    "Shorten the prompt or the conversation, ask for fewer tokens (ModelOption.MAX_NEW_TOKENS), or have the "
    "server run the model with a larger context."
)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
