"""Sessions. The tests watch who is dialled, not only what the guard says."""

import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from identity_pipeline.core.errors import ConfigurationError, SourceUnavailable
from identity_pipeline.readers.http import guard, session
from identity_pipeline_tests.servers.files import Authority, FileServer

PUBLIC = "93.184.216.34"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDENTITY_ALLOW_PRIVATE_HOSTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that anything connects to. Nothing really does."""
    addresses: list[str] = []

    def connect(_: socket.socket, address: tuple[str, int]) -> None:
        addresses.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    return addresses


def resolver(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """Each look-up gets the next answer, the last one for ever."""
    left = list(answers)

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        addresses = [host] if host[0].isdigit() or ":" in host else left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


INTERNAL = [
    "127.0.0.1", "127.1", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "0", "0.0.0.0", "localhost", "localhost.",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    "[fe80::1]", "[fc00::1]", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "169.254.169.254", "168.63.129.16", "198.18.0.1",
    "224.0.0.1", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "127.0.0.1%2f", "intranet",
]  # fmt: skip


@pytest.mark.parametrize("host", INTERNAL)
def test_an_internal_host_is_not_dialled_however_it_is_written(host: str, dialled: list[str]) -> None:
    with pytest.raises((ConfigurationError, requests.RequestException)):
        session.session().get(f"https://{host}/")
    with pytest.raises(ConfigurationError):
        guard.check_url(f"https://{host}/")
    with pytest.raises(ConfigurationError):
        guard.resolve(host.strip("[]"), 443)
    assert dialled == []


@pytest.mark.parametrize("host", INTERNAL)
def test_the_connection_guards_itself_when_the_validator_is_passed(host: str, dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "check_url", lambda url, setting="url": url)
    with pytest.raises((ConfigurationError, requests.RequestException)):
        session.session().get(f"https://{host}/")
    assert dialled == []


def test_a_public_host_is_dialled_at_the_address_that_was_checked(dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, [PUBLIC])
    with pytest.raises(requests.ConnectionError):
        session.session().get("https://example.com/")
    assert dialled == [PUBLIC]
    assert guard.resolve("example.com", 443) == PUBLIC


def test_a_name_that_is_rebound_after_the_check_is_not_dialled(dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, [PUBLIC], ["127.0.0.1"])
    guard.resolve(guard.check_host("rebinding.example.com"), 443)
    with pytest.raises(ConfigurationError, match="private or reserved"):
        session.session().get("https://rebinding.example.com/")
    assert dialled == []


def test_a_connection_resolves_once_and_keeps_to_the_answer(dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, [PUBLIC], ["127.0.0.1"])
    with pytest.raises(requests.ConnectionError):
        session.session().get("https://rebinding.example.com/")
    assert dialled == [PUBLIC]


def test_one_internal_address_among_public_ones_refuses_the_host(dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, [PUBLIC, "10.0.0.1"])
    with pytest.raises(ConfigurationError):
        session.session().get("https://example.com/")
    with pytest.raises(ConfigurationError):
        guard.resolve("example.com", 5432)
    assert dialled == []


def test_the_second_address_is_tried_when_the_first_does_not_answer(dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, ["2606:4700::1", PUBLIC])
    with pytest.raises(requests.ConnectionError):
        session.session().get("https://example.com/")
    assert dialled == ["2606:4700::1", PUBLIC]


def test_nothing_is_sent_to_a_peer_that_is_not_the_one_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(guard, "addresses", lambda host, _: [PUBLIC])
        monkeypatch.setattr(session, "create_connection", lambda *_, **__: socket.create_connection(("127.0.0.1", port)))
        with pytest.raises(ConfigurationError):
            session.session().get("https://example.com/")
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(1) == b""


def test_a_name_that_does_not_resolve_may_be_tried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(SourceUnavailable, match=r"nowhere\.example\.com"):
        guard.resolve("nowhere.example.com", 5432)
    with pytest.raises(requests.ConnectionError):
        session.session().get("https://nowhere.example.com/")


# --- TLS and environment ----------------------------------------------------------------------


def test_proxies_and_netrc_of_the_environment_are_ignored(server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login u password SECRET\n")
    for name, value in {"HTTPS_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1", "NETRC": str(tmp_path / "netrc")}.items():
        monkeypatch.setenv(name, value)
    assert session.session().get(server.url + "/file").content == b"content"
    assert "Authorization" not in server.requests[-1][1]


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_private_authority_is_trusted_only_when_named(
    server: FileServer, variable: str, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(requests.exceptions.SSLError):
        session.session().get(server.url + "/file")
    monkeypatch.setenv(variable, str(authority.bundle))
    assert session.session().get(server.url + "/file").content == b"content"
    for none in (authority.bundle.with_suffix(".gone"), Path(__file__)):
        monkeypatch.setenv(variable, str(none))
        with pytest.raises(ConfigurationError, match=variable):
            session.session()
    assert len(server.requests) == 1


def test_two_named_authorities_are_both_trusted(server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.bundle))
    with FileServer(other) as second:
        second.put("/file", b"second")
        client = session.session()
        assert [client.get(one.url + "/file").content for one in (server, second)] == [b"content", b"second"]


def test_a_certificate_of_another_name_or_out_of_date_is_refused(authority: Authority) -> None:
    for context in (authority.context("other.example.com"), authority.context(not_after=datetime(2020, 1, 1, tzinfo=UTC))):
        with FileServer(authority, context=context) as server:
            with pytest.raises(requests.exceptions.SSLError):
                session.session().get(server.url + "/file")
            assert server.requests == []


def test_tls_before_1_2_is_refused(authority: Authority) -> None:
    adapter: Any = session.session().get_adapter("https://example.com")
    pool = adapter.poolmanager.connection_from_url("https://example.com")
    assert pool.conn_kw["ssl_context"].minimum_version == ssl.TLSVersion.TLSv1_2, "whatever the system's OpenSSL would refuse by itself"
    context = authority.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with FileServer(authority, context=context) as server:
        with pytest.raises(requests.exceptions.SSLError):
            session.session().get(server.url + "/file")
        assert server.requests == []
