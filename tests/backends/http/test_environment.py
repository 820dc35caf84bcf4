"""Proxies and certificates: what the environment says of them, and what a caller does."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import anyio.streams.tls
import httpx
import httpx2
import pytest

from mellea_sc.backends.http.address import parse_address
from mellea_sc.backends.http.environment import ClientSettings, new_tls_context, proxy_for
from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Backend, ChatMessage, GenerationRequest
from mellea_sc.core.errors import (
    BackendError,
    BackendRejected,
    BackendUnreachable,
    InvalidOption,
    MelleaError,
    NotAuthorized,
)

REQUEST = GenerationRequest((ChatMessage("user", "hi"),))
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    b'data: {"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
)
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower() in VARIABLES:
            monkeypatch.delenv(name)


async def text_from(backend: Backend) -> str:
    async with backend.open(REQUEST) as deltas:
        return "".join([delta.text async for delta in deltas])


class Listener:
    """Answers every request with the same bytes, and keeps their heads."""

    def __init__(self, answer: bytes) -> None:
        self.heads: list[bytes] = []
        self._answer = answer

    async def serve(self, stream: anyio.abc.ByteStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received:
                received += await stream.receive()
            self.heads.append(received)
            await stream.send(self._answer)

    @asynccontextmanager
    async def on(self, listener: anyio.abc.Listener[anyio.abc.ByteStream]) -> AsyncIterator[None]:
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, self.serve)
            yield
            tasks.cancel_scope.cancel()


# --- which proxy -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("no_proxy", "url", "excepted"),
    [
        ("*", "http://model.example", True),
        ("model.example", "http://model.example", True),
        ("model.example", "http://eu.model.example", True),
        (".model.example", "http://eu.model.example", True),
        ("*.model.example", "http://eu.model.example", True),
        ("MODEL.example.", "http://model.EXAMPLE", True),
        ("model.example", "http://othermodel.example", False),
        ("a, b  model.example", "http://model.example", True),
        ("model.example:8080", "http://model.example:8080", True),
        ("model.example:8080", "http://model.example", False),
        ("model.example:443", "https://model.example", True),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.1.2.3", "http://10.1.2.3:99", True),
        ("10.1.2.3:98", "http://10.1.2.3:99", False),
        ("fd00::/8", "http://[fd12::1]", True),
        ("fd12::1", "http://[fd12::1]:8080", True),
        ("[fd12::1]", "http://[fd12::1]", True),
        ("[fd12::1]:8080", "http://[fd12::1]:8080", True),
        ("[fd12::1]:8080", "http://[fd12::1]:8081", False),
        ("10.0.0.0/8", "http://[::ffff:10.1.2.3]", True),
        ("https://model.example", "http://model.example", False),
        ("http://model.example", "http://model.example", True),
        ("localhost,::1,[::1],host:port,10.0.0.0/99,/,:", "http://model.example", False),
    ],
)
def test_no_proxy_has_hosts_addresses_networks_and_ports(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, excepted: bool
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(parse_address(url)) is None) is excepted


def test_an_exception_for_this_server_that_cannot_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", "model.example:port")
    with pytest.raises(InvalidOption, match="NO_PROXY"):
        proxy_for(parse_address("http://model.example"))
    assert proxy_for(parse_address("http://other.example")) is not None


def test_the_schemes_own_proxy_goes_before_that_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    monkeypatch.setenv("https_proxy", "secure:2")
    plain, secure = (proxy_for(parse_address(f"{s}://model.example")) for s in ("http", "https"))
    assert plain is not None
    assert secure is not None
    assert (plain.url, plain.named_by) == ("http://all:1", "ALL_PROXY")
    assert (secure.url, secure.named_by) == ("http://secure:2", "https_proxy")


@pytest.mark.parametrize(
    "url",
    [
        "http://user:Hunter2/x@127.0.0.1:1",
        "http://user:9/Hunter2@127.0.0.1:1",
        "http://user:Hunter2@127.0.0.1:99999",
        "http://user:Hunter2@127.0.0.1:abc",
        "http://user:Hunter2@",
        "http://user:Hunter2@[::1",
        "http://user:Hunter2@h?x",
        "ftp://user:Hunter2@h",
    ],
)
def test_a_proxy_that_is_no_url_is_named_by_its_variable_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", url)
    with pytest.raises(InvalidOption, match="HTTP_PROXY") as caught:
        proxy_for(parse_address("http://model.example"))
    assert "Hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    with pytest.raises(InvalidOption, match="proxy") as caught:
        OpenAIBackend("m", base_url="http://model.example", proxy=url)
    assert "Hunter2" not in str(caught.value)


def test_a_servers_own_settings_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    address = parse_address("http://model.example")
    given = proxy_for(address, "http://me:hidden@given:2")
    assert given is not None
    assert str(given) == "the proxy of proxy="
    assert "hidden" not in repr(given) + repr(ClientSettings(proxy="http://me:hidden@given:2"))
    assert proxy_for(address, False) is None


@pytest.mark.parametrize(
    "settings", [{"verify": 1}, {"proxy": 1}, {"timeout": 0}, {"timeout": "1"}, {"timeout": True}]
)
def test_settings_that_make_no_sense_are_refused_when_they_are_given(
    settings: dict[str, object],
) -> None:
    for kind in (OpenAIBackend, OllamaBackend):
        with pytest.raises(InvalidOption, match=next(iter(settings))):
            kind("m", base_url="http://h", **settings)  # type: ignore[arg-type]


# --- through a proxy -------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_request_goes_through_the_proxy_with_its_user_and_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = Listener(ANSWER)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with proxy.on(listener):
        monkeypatch.setenv("HTTP_PROXY", f"http://me:p%40ss@127.0.0.1:{port}")
        backend = OpenAIBackend("m", base_url="http://model.invalid", api_key="sk-a")
        assert await text_from(backend) == "yes"
    assert proxy.heads[0].startswith(b"POST http://model.invalid/v1/chat/completions HTTP/1.1")
    assert b"authorization: basic bwu6cebzcw==" in proxy.heads[0].lower()


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_wants_a_password_is_told_from_the_server_that_wants_a_key(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    proxy = Listener(
        b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 19\r\n\r\nwho is user:S3cret?"
    )
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with proxy.on(listener):
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://user:S3cret@127.0.0.1:{port}")
        with pytest.raises((NotAuthorized, BackendUnreachable), match=r"407 Proxy") as caught:
            await text_from(OpenAIBackend("m", base_url=f"{scheme}://model.invalid"))
    assert f"{scheme.upper()}_PROXY" in str(caught.value)
    assert "S3cret" not in f"{caught.value}{vars(caught.value)}"
    assert "OPENAI_API_KEY" not in str(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["its own", "httpx", "httpx2"])
async def test_a_proxy_that_does_not_answer_is_bounded_like_connecting(kind: str) -> None:
    async def is_silent(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            heads.append(await stream.receive())
            await anyio.sleep_forever()

    heads: list[bytes] = []
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    proxy = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
    url = "https://model.invalid"
    async with listener, anyio.create_task_group() as tasks, AsyncExitStack() as clients:
        tasks.start_soon(listener.serve, is_silent)
        if kind == "its own":
            backend = OpenAIBackend("m", base_url=url, proxy=proxy, timeout=0.2)
        else:
            module = httpx if kind == "httpx" else httpx2
            client = await clients.enter_async_context(
                module.AsyncClient(proxy=proxy, verify=False)
            )
            backend = OpenAIBackend("m", base_url=url, client=client, timeout=0.2)
        with (
            anyio.fail_after(5),
            pytest.raises(BackendUnreachable, match="it took too long") as caught,
        ):
            await text_from(backend)
        tasks.cancel_scope.cancel()
    assert caught.value.fault == ("proxy" if kind == "its own" else "server")
    assert heads[0].startswith(b"CONNECT model.invalid:443 ")


@pytest.mark.anyio
async def test_a_proxy_that_is_not_there_is_told_from_a_server_that_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with pytest.raises(BackendUnreachable, match="through the proxy of ALL_PROXY") as caught:
        await text_from(OpenAIBackend("m", base_url="http://model.invalid"))
    assert caught.value.fault == "proxy"
    with pytest.raises(BackendUnreachable) as caught:
        await text_from(OpenAIBackend("m", base_url="http://127.0.0.1:9"))
    assert caught.value.fault == "server"
    assert "proxy" not in str(caught.value)


# --- certificates ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder_of_it(certificate: Path) -> Path:
    """The folder with it, as OpenSSL reads folders."""
    folder = certificate.parent / "folder"
    folder.mkdir()
    shutil.copy(certificate, folder / "one.pem")
    subprocess.run(["openssl", "rehash", folder], check=True)
    return folder


@asynccontextmanager
async def tls_server(certificate: Path, *, wants_ours: bool = False) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    if wants_ours:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate)
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    listener = anyio.streams.tls.TLSListener(plain, context, standard_compatible=False)
    async with Listener(ANSWER).on(listener):
        yield plain.extra(anyio.abc.SocketAttribute.local_port)


@pytest.mark.anyio
async def test_certificates_are_trusted_that_the_environment_or_the_caller_names(
    certificate: Path, folder_of_it: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(cafile=certificate)
    async with tls_server(certificate) as port:
        url = f"https://127.0.0.1:{port}"
        for verify in (False, certificate, str(certificate), folder_of_it, context):
            assert await text_from(OpenAIBackend("m", base_url=url, verify=verify)) == "yes"
        for name, path in (("SSL_CERT_FILE", certificate), ("SSL_CERT_DIR", folder_of_it)):
            with monkeypatch.context() as patch:
                patch.setenv(name, str(path))
                assert await text_from(OpenAIBackend("m", base_url=url)) == "yes"


@pytest.mark.anyio
async def test_a_certificate_that_is_not_trusted_is_told_as_such(certificate: Path) -> None:
    async with tls_server(certificate) as port:
        for backend, reason in (
            (OpenAIBackend("m", base_url=f"https://127.0.0.1:{port}"), "self-signed"),
            (
                OpenAIBackend(
                    "m", base_url=f"https://[::ffff:127.0.0.1]:{port}", verify=certificate
                ),
                "not valid for '::ffff:127.0.0.1'",
            ),
        ):
            with pytest.raises(
                BackendUnreachable, match=f"certificate.*not trusted.*{reason}"
            ) as e:
                await text_from(backend)
            assert "verify=" in str(e.value)
            assert e.value.fault == "certificate"


@pytest.mark.anyio
async def test_a_server_that_wants_our_certificate_gets_the_one_of_our_context(
    certificate: Path,
) -> None:
    with_ours = ssl.create_default_context(cafile=certificate)
    with_ours.load_cert_chain(certificate, certificate.with_name("key.pem"))
    async with tls_server(certificate, wants_ours=True) as port:
        url = f"https://127.0.0.1:{port}"
        assert await text_from(OpenAIBackend("m", base_url=url, verify=with_ours)) == "yes"
        with pytest.raises(BackendError, match=r"certificate|cut off"):
            await text_from(OpenAIBackend("m", base_url=url, verify=certificate))


@pytest.mark.anyio
async def test_tls_where_none_is_spoken_is_told_as_such() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)

    async def answer(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        with pytest.raises(BackendUnreachable, match="http://") as caught:
            await text_from(OpenAIBackend("m", base_url=f"https://127.0.0.1:{port}"))
        tasks.cancel_scope.cancel()
    assert caught.value.fault == "certificate"


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("there", [True, False])
def test_certificates_that_are_not_there_are_named_by_their_variable_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, there: bool
) -> None:
    path = tmp_path / "S3cret"
    if there and name == "SSL_CERT_FILE":
        path.write_text("no certificate")
    elif there:
        path.mkdir()
    monkeypatch.setenv(name, str(path))
    with pytest.raises(InvalidOption, match=name) as caught:
        new_tls_context()
    assert "S3cret" not in str(caught.value)
    with pytest.raises(InvalidOption, match="verify"):
        new_tls_context(path)


@pytest.mark.anyio
async def test_what_is_wrong_with_the_environment_is_no_business_of_a_server_that_needs_none_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:99999")
    server = Listener(ANSWER)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with server.on(listener):
        for host in ("127.0.0.1", "127.1", "[::ffff:127.0.0.1]"):
            assert await text_from(OpenAIBackend("m", base_url=f"http://{host}:{port}")) == "yes"
    assert len(server.heads) == 3


@pytest.mark.anyio
async def test_a_refusal_that_comes_while_a_large_request_is_sent_is_told_by_its_words_or_its_size() -> (
    None
):
    async def refuse(stream: anyio.abc.ByteStream) -> None:
        await stream.receive(1000)
        await stream.send(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nno!")
        await stream.aclose()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    request = GenerationRequest((ChatMessage("user", "x" * 20_000_000),))
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, refuse)
        with pytest.raises(MelleaError) as caught:
            async with OpenAIBackend("m", base_url=f"http://127.0.0.1:{port}").open(request):
                pass
        tasks.cancel_scope.cancel()
    if isinstance(caught.value, BackendRejected):
        assert caught.value.status == 413
        assert "too large" in str(caught.value)
    else:
        assert "a request of 20.0 MB was sent" in str(caught.value)
