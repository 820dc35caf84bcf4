"""Addresses as people write them."""

from __future__ import annotations

import pytest

from mellea_sc.backends.http.address import parse_address
from mellea_sc.backends.http.failures import Advice, Failures
from mellea_sc.backends.ollama import OllamaBackend, ollama_url
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.errors import InvalidOption


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ("gpu", "http://gpu:11434"),
        ("gpu:8080", "http://gpu:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:99", "http://127.0.0.1:99"),
        ("http://gpu", "http://gpu"),
        ("http://gpu:1234/", "http://gpu:1234/"),
        ("https://gpu/prefix", "https://gpu/prefix"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:33", "http://[::1]:33"),
        ("[::]:33", "http://[::1]:33"),
        ("http://me:pw@gpu:1", "http://me:pw@gpu:1"),
        ('"gpu"', "http://gpu:11434"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(host: str, url: str) -> None:
    assert ollama_url(host) == url


@pytest.mark.parametrize(
    ("base_url", "where"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("http://h:1/v1", "http://h:1/v1"),
        ("http://h:1/v1/", "http://h:1/v1"),
        (" https://h/openai/ ", "https://h/openai"),
    ],
)
def test_a_base_url_without_a_path_is_taken_to_end_in_v1(base_url: str, where: str) -> None:
    assert repr(OpenAIBackend("m", base_url=base_url)) == f"OpenAIBackend('m', {where!r})"


@pytest.mark.parametrize(
    ("base_url", "sent"),
    [
        ("http://h:80/a b", "http://h/a%20b/c"),
        ("https://h:443", "https://h/c"),
        ("https://h:80", "https://h:80/c"),
        ("http://[::1]:1/v1", "http://[::1]:1/v1/c"),
        ("http://bücher.example/é", "http://xn--bcher-kva.example/%C3%A9/c"),
        ("http://h/a%2Fb?api-version=1&x=a b", "http://h/a%2Fb/c?api-version=1&x=a%20b"),
    ],
)
def test_an_address_is_sent_in_ascii_and_without_the_usual_port(base_url: str, sent: str) -> None:
    assert parse_address(base_url).at("/c") == sent


def test_the_environment_says_where_the_servers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://there:1/v1")
    monkeypatch.setenv("OLLAMA_HOST", "elsewhere")
    assert "http://there:1/v1" in repr(OpenAIBackend("m"))
    assert "http://elsewhere:11434" in repr(OllamaBackend("m"))
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.delenv("OLLAMA_HOST")
    assert "https://api.openai.com/v1" in repr(OpenAIBackend("m"))
    assert "http://127.0.0.1:11434" in repr(OllamaBackend("m"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:1",
        "ftp://h",
        "http://",
        "http://:1",
        "http://h:99999",
        "http://h:x",
        "http://[::1",
        "http://h/#a",
        "http://h/?ä",
    ],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidOption, match="base URL"):
        parse_address(url)


@pytest.mark.parametrize(
    "url", ["http://me:hidden@h:x", "http://me:hid#den@h", "ftp://me:hidden@h"]
)
def test_the_password_in_what_is_no_base_url_is_not_shown(url: str) -> None:
    with pytest.raises(InvalidOption, match="base URL") as caught:
        parse_address(url)
    assert "hid" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-a\nb", "sk a", "sk-é", "sk\x00"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(InvalidOption, match="API key") as caught:
        OpenAIBackend("m", base_url="http://h", api_key=key)
    assert key not in str(caught.value)


def test_a_line_break_after_a_key_is_not_part_of_it() -> None:
    address = parse_address("http://h", api_key="sk-abcd\n")
    assert address.authorization is not None
    assert address.authorization.value == "Bearer sk-abcd"


def test_the_callers_key_wins_over_the_urls_and_that_over_the_environments() -> None:
    def authorization(url: str, api_key: str | None) -> str:
        address = parse_address(url, api_key=api_key, default_key="env")
        assert address.authorization is not None
        return address.authorization.value

    assert authorization("http://u:p@h", "mine") == "Bearer mine"
    assert authorization("http://u:p@h", None) == "Basic dTpw"
    assert authorization("http://h", None) == "Bearer env"


def test_no_repr_shows_a_key_or_a_password() -> None:
    backend = OpenAIBackend("m", base_url="http://me:p4ssw0rd@h", api_key="sk-k3y")
    for shown in (repr(backend), repr(vars(backend)), repr(parse_address("http://me:p4ssw0rd@h"))):
        assert "p4ssw0rd" not in shown
        assert "k3y" not in shown


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:1", True),
        ("http://a.localhost", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:1", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example", False),
        ("http://0.0.0.0:1", True),
        ("http://[::]:1", True),
        ("http://127.1", True),
        ("http://0x7f.0.0.1", True),
        ("http://2130706433", True),
        ("http://0", True),
        ("http://localhost.", True),
        ("http://LOCALHOST", True),
        ("http://[::ffff:127.0.0.1]:1", True),
        ("http://[::ffff:0.0.0.0]:1", True),
        ("http://[::ffff:10.0.0.1]:1", False),
        ("http://10.1", False),
        ("http://127.example", False),
    ],
)
def test_every_spelling_of_this_machine_is_known(url: str, *, local: bool) -> None:
    assert parse_address(url).is_local is local


def test_what_the_environment_knows_of_another_server_does_not_reach_a_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://there:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    backend = OpenAIBackend("m", uds="/run/engine")
    assert repr(backend) == "OpenAIBackend('m', 'unix:/run/engine')"
    assert backend.address.authorization is None


@pytest.mark.parametrize(
    ("host", "usual"),
    [
        ("localhost.", "localhost"),
        ("127.1", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("256.1.1.1", "256.1.1.1"),
        ("h.example.", "h.example."),
    ],
)
def test_a_host_is_spelled_so_that_every_client_knows_it(host: str, usual: str) -> None:
    assert str(parse_address(f"http://{host}:8080/v1")) == f"http://{usual}:8080/v1"
    assert str(parse_address(f"http://{host}")) == f"http://{usual}"


@pytest.mark.parametrize("user", ["t0ken", "t0ken:", "t0ken:x-oauth-basic", "me:t0ken"])
def test_user_and_password_are_secrets(user: str) -> None:
    address = parse_address(f"http://{user}@h")
    failures = Failures("server", Advice("", "", "", ""), address.secrets)
    assert failures.clean("no access for t0ken") == "no access for ***"


def test_a_url_from_the_environment_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:hidden@h:x")
    monkeypatch.setenv("OLLAMA_HOST", "http://me:hidden@h:1:x")
    for kind, name in ((OpenAIBackend, "OPENAI_BASE_URL"), (OllamaBackend, "OLLAMA_HOST")):
        with pytest.raises(InvalidOption, match=name) as caught:
            kind("m")
        assert "hidden" not in str(caught.value)
