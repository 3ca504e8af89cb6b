"""The network guard. The tests watch who is dialled, not only what the validator says."""

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import requests
from hypothesis import HealthCheck, given, settings

from identity_pipeline.core.errors import ConfigurationError, SourceRejected, SourceUnavailable
from identity_pipeline.readers import network
from identity_pipeline_tests.servers.faults import FaultProxy, redirect
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


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that we trust; loopback is let through."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.bundle))
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1,localhost")
    return made


@pytest.fixture
def server(authority: Authority) -> Iterator[FileServer]:
    with FileServer(authority) as server:
        server.put("/file", b"content")
        yield server


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
        network.session().get(f"https://{host}/")
    with pytest.raises(ConfigurationError):
        network.check_url(f"https://{host}/")
    with pytest.raises(ConfigurationError):
        network.resolve(host.strip("[]"), 443)
    assert dialled == []


@pytest.mark.parametrize("host", INTERNAL)
def test_the_connection_guards_itself_when_the_validator_is_passed(host: str, dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "check_url", lambda url, setting="url": url)
    with pytest.raises((ConfigurationError, requests.RequestException)):
        network.session().get(f"https://{host}/")
    assert dialled == []


def test_a_public_host_is_dialled_at_the_address_that_was_checked(dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, [PUBLIC])
    with pytest.raises(requests.ConnectionError):
        network.session().get("https://example.com/")
    assert dialled == [PUBLIC]
    assert network.resolve("example.com", 443) == PUBLIC


def test_a_name_that_is_rebound_after_the_check_is_not_dialled(dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, [PUBLIC], ["127.0.0.1"])
    network.resolve(network.check_host("rebinding.example.com"), 443)
    with pytest.raises(ConfigurationError, match="private or reserved"):
        network.session().get("https://rebinding.example.com/")
    assert dialled == []


def test_a_connection_resolves_once_and_keeps_to_the_answer(dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, [PUBLIC], ["127.0.0.1"])
    with pytest.raises(requests.ConnectionError):
        network.session().get("https://rebinding.example.com/")
    assert dialled == [PUBLIC]


def test_one_internal_address_among_public_ones_refuses_the_host(dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, [PUBLIC, "10.0.0.1"])
    with pytest.raises(ConfigurationError):
        network.session().get("https://example.com/")
    with pytest.raises(ConfigurationError):
        network.resolve("example.com", 5432)
    assert dialled == []


def test_the_second_address_is_tried_when_the_first_does_not_answer(dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, ["2606:4700::1", PUBLIC])
    with pytest.raises(requests.ConnectionError):
        network.session().get("https://example.com/")
    assert dialled == ["2606:4700::1", PUBLIC]


def test_nothing_is_sent_to_a_peer_that_is_not_the_one_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(network, "_addresses", lambda host, _: [PUBLIC])
        monkeypatch.setattr(network, "create_connection", lambda *_, **__: socket.create_connection(("127.0.0.1", port)))
        with pytest.raises(ConfigurationError):
            network.session().get("https://example.com/")
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(1) == b""


PUBLIC_ADDRESSES = ["1.1.1.1", PUBLIC, "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
DENIED_ADDRESSES = [
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:a9fe:a9fe::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "3fff::1", "ff02::1",
    "fec0::1", "100::1", "5f00::1", "::2", "192.0.0.9", "192.0.2.1", "192.88.99.1", "203.0.113.9", "255.255.255.255",
    "240.0.0.1", "239.1.1.1", "2606:4700::5efe:7f00:1", "fe80::1%eth0", "nonsense", "",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_a_public_address_is_allowed(address: str) -> None:
    assert network.allowed(address)


@pytest.mark.parametrize("address", DENIED_ADDRESSES)
def test_an_address_that_is_no_public_host_is_denied(address: str) -> None:
    assert not network.allowed(address)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.ip_addresses())
def test_whatever_is_not_global_is_denied_wrapped_or_not(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        assert not network.allowed(str(address))
    if isinstance(address, ipaddress.IPv4Address):
        for prefix in ("::ffff:", "64:ff9b::"):
            assert network.allowed(f"{prefix}{address}") == network.allowed(str(address))
        assert not network.allowed(f"::{address}")


def test_listed_hosts_and_ranges_are_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", " 10.1.0.0/16, db.internal ,fd12::/16")
    assert network.allowed("10.1.2.3")
    assert network.allowed("fd12::7")
    assert not network.allowed("10.2.0.1")
    assert network.allowed("10.2.0.1", "DB.internal.")
    assert not network.allowed("10.2.0.1", "db.internal.evil.com")
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "")
    assert not network.allowed("10.1.2.3"), "the setting is read when asked"


def test_a_metadata_address_is_let_through_only_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for listed in ("169.254.0.0/16", "metadata.google.internal", "0.0.0.0/0", "64:ff9b::/96"):
        monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", listed)
        assert not network.allowed("169.254.169.254", "metadata.google.internal")
        assert not network.allowed("64:ff9b::a9fe:a9fe", "metadata.google.internal")
        assert not network.allowed("::ffff:169.254.169.254", "metadata.google.internal")
    assert not network.allowed("168.63.129.16")
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "169.254.169.254")
    assert network.allowed("169.254.169.254")


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "ho st", "https://host", "*"])
def test_an_allow_list_that_cannot_be_read_is_an_error(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", entry)
    with pytest.raises(ConfigurationError, match="IDENTITY_ALLOW_PRIVATE_HOSTS"):
        network.allowed("10.0.0.1")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://example.com/", "not encrypted"),
        ("ftp://example.com/", "not an https"),
        ("file:///etc/passwd", "not an https"),
        ("//example.com/", "not an https"),
        ("example.com", "not an https"),
        ("", "not an https"),
        ("https:///path", "not an https"),
        ("https://user:SECRET@example.com/", "user name or password"),
        ("https://example.com:8443/?k=SECRET", "not on port 443"),
        ("https://example.com:0/", "not on port 443"),
        ("https://exam ple.com/", "space"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https://example.com/\r\nHost: x", "control"),
        ("https://exämple.com/", "plain host name"),
        ("https://example.com%2f@x/", "user name"),
        ("https://-bad-.com/", "plain host name"),
        ("https://[::1", "cannot be read"),
        ("https://example.com:443:443/", "plain host name"),
    ],
)
def test_an_address_that_is_none_of_ours_is_refused_with_advice(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        network.check_url(url, "base_url")
    assert str(caught.value).startswith("base_url: ")
    assert "SECRET" not in str(caught.value)


def test_a_plain_address_passes_and_loses_its_fragment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert network.check_url("https://Example.com:443/a?b=c#d") == "https://Example.com:443/a?b=c"
    assert network.check_url("https://xn--exmple-cua.com") == "https://xn--exmple-cua.com"
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "intranet,127.0.0.0/8")
    assert network.check_url("http://intranet:8080/x") == "http://intranet:8080/x"
    assert network.check_url("http://127.0.0.1:8080/x") == "http://127.0.0.1:8080/x"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://u:SECRET@h.com:8443/p/q?k=SECRET#SECRET", "https://h.com:8443/p/q"),
        ("https://a@SECRET@h.com/p", "https://h.com/p"),
        ("h.com/p?SECRET", "h.com/p"),
        ("https://h.com?SECRET", "https://h.com"),
        ("https://h.com/a\nb\x1b", "https://h.com/a�b�"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_query_and_user(url: str, text: str) -> None:
    assert network.display_url(url) == text


def test_a_name_that_does_not_resolve_may_be_tried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(SourceUnavailable, match=r"nowhere\.example\.com"):
        network.resolve("nowhere.example.com", 5432)
    with pytest.raises(requests.ConnectionError):
        network.session().get("https://nowhere.example.com/")


@pytest.mark.parametrize("host", ["/tmp/pg", "a,b", "h.com hostaddr=127.0.0.1", "", "h.com\x00", "a..b", "@x", "127.0.0.1:80"])
def test_a_host_that_is_none_is_not_resolved(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("looked up"))
    with pytest.raises(ConfigurationError):
        network.resolve(host, 5432)


# --- redirects --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("https://127.0.0.2/x?SECRET", "private or reserved"),
        ("https://169.254.169.254/latest/meta-data/", "private or reserved"),
        ("https://[::ffff:10.0.0.1]/", "private or reserved"),
        ("file:///etc/passwd", "not an https"),
        ("gopher://127.0.0.1/", "not an https"),
        ("https://2130706433/", "plain host name"),
        ("http://localhost:1/", "not encrypted"),
        ("https://u:SECRET@localhost/", "user name"),
    ],
)
def test_a_redirect_to_where_we_may_not_go_is_not_followed(server: FileServer, authority: Authority, target: str, told: str) -> None:
    with FaultProxy(server.url, tls=authority.context()).plan([redirect(target)]) as proxy:
        with pytest.raises(ConfigurationError, match=told) as caught:
            network.follow(network.session(), proxy.url + "/file?SECRET")
        assert len(proxy.requests) == 1
    assert "SECRET" not in str(caught.value)


def test_requests_itself_follows_no_redirect(server: FileServer, authority: Authority) -> None:
    with FaultProxy(server.url, tls=authority.context()).plan([redirect("/file")]) as proxy:
        assert network.session().get(proxy.url + "/start").status_code == 302


def test_five_redirects_are_followed_and_no_more(server: FileServer, authority: Authority) -> None:
    with FaultProxy(server.url, tls=authority.context()) as proxy:
        proxy.plan([redirect("/file", code) for code in (301, 302, 303, 307)] + [redirect(f"{server.url}/file", 308)])
        with network.follow(network.session(), proxy.url + "/start") as response:
            assert (response.content, response.url) == (b"content", f"{server.url}/file")
        proxy.plan([redirect("/file")] * 6)
        with pytest.raises(SourceRejected, match="more than 5 times"):
            network.follow(network.session(), proxy.url + "/start")
        proxy.plan([redirect("")])
        with pytest.raises(SourceRejected, match="without a Location"):
            network.follow(network.session(), proxy.url + "/start")


def test_no_credential_travels_to_another_host(server: FileServer, authority: Authority) -> None:
    sent = {"Authorization": "Bearer SECRET", "X-Api-Key": "SECRET", "Cookie": "SECRET", "If-None-Match": "tag", "User-Agent": "us"}
    server.put("/here", b"", status=302, headers={"Location": "/file"})
    network.follow(network.session(), server.url + "/here", headers=sent).close()
    assert server.requests[-1][1].items() >= sent.items(), "the same host gets them again"
    with FileServer(authority) as other:
        other.put("/file", b"content")
        server.put("/away", b"", status=302, headers={"Location": f"https://localhost:{other.port}/file"})
        network.follow(network.session(), server.url + "/away", headers=sent).close()
        ((_, received),) = other.requests
    assert "SECRET" not in str(received)
    assert (received["If-None-Match"], received["User-Agent"]) == ("tag", "us")


# --- TLS and environment ----------------------------------------------------------------------


def test_proxies_and_netrc_of_the_environment_are_ignored(server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login u password SECRET\n")
    for name, value in {"HTTPS_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1", "NETRC": str(tmp_path / "netrc")}.items():
        monkeypatch.setenv(name, value)
    assert network.session().get(server.url + "/file").content == b"content"
    assert "Authorization" not in server.requests[-1][1]


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_private_authority_is_trusted_only_when_named(
    server: FileServer, variable: str, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(requests.exceptions.SSLError):
        network.session().get(server.url + "/file")
    monkeypatch.setenv(variable, str(authority.bundle))
    assert network.session().get(server.url + "/file").content == b"content"
    for none in (authority.bundle.with_suffix(".gone"), Path(__file__)):
        monkeypatch.setenv(variable, str(none))
        with pytest.raises(ConfigurationError, match=variable):
            network.session()
    assert len(server.requests) == 1


def test_two_named_authorities_are_both_trusted(server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.bundle))
    with FileServer(other) as second:
        second.put("/file", b"second")
        client = network.session()
        assert [client.get(one.url + "/file").content for one in (server, second)] == [b"content", b"second"]


def test_a_certificate_of_another_name_or_out_of_date_is_refused(authority: Authority) -> None:
    for context in (authority.context("other.example.com"), authority.context(not_after=datetime(2020, 1, 1, tzinfo=UTC))):
        with FileServer(authority, context=context) as server:
            with pytest.raises(requests.exceptions.SSLError):
                network.session().get(server.url + "/file")
            assert server.requests == []


def test_tls_before_1_2_is_refused(authority: Authority) -> None:
    adapter: Any = network.session().get_adapter("https://example.com")
    pool = adapter.poolmanager.connection_from_url("https://example.com")
    assert pool.conn_kw["ssl_context"].minimum_version == ssl.TLSVersion.TLSv1_2, "whatever the system's OpenSSL would refuse by itself"
    context = authority.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with FileServer(authority, context=context) as server:
        with pytest.raises(requests.exceptions.SSLError):
            network.session().get(server.url + "/file")
        assert server.requests == []
