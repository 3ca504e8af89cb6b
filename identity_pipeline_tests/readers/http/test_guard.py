"""The network guard: which addresses may be asked."""

import ipaddress
import socket

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.readers.http import guard


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IDENTITY_ALLOW_PRIVATE_HOSTS", raising=False)


PUBLIC_ADDRESSES = ["1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
DENIED_ADDRESSES = [
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:a9fe:a9fe::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "3fff::1", "ff02::1",
    "fec0::1", "100::1", "5f00::1", "::2", "192.0.0.9", "192.0.2.1", "192.88.99.1", "203.0.113.9", "255.255.255.255",
    "240.0.0.1", "239.1.1.1", "2606:4700::5efe:7f00:1", "fe80::1%eth0", "nonsense", "",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_a_public_address_is_allowed(address: str) -> None:
    assert guard.allowed(address)


@pytest.mark.parametrize("address", DENIED_ADDRESSES)
def test_an_address_that_is_no_public_host_is_denied(address: str) -> None:
    assert not guard.allowed(address)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.ip_addresses())
def test_whatever_is_not_global_is_denied_wrapped_or_not(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        assert not guard.allowed(str(address))
    if isinstance(address, ipaddress.IPv4Address):
        for prefix in ("::ffff:", "64:ff9b::"):
            assert guard.allowed(f"{prefix}{address}") == guard.allowed(str(address))
        assert not guard.allowed(f"::{address}")


def test_listed_hosts_and_ranges_are_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", " 10.1.0.0/16, db.internal ,fd12::/16")
    assert guard.allowed("10.1.2.3")
    assert guard.allowed("fd12::7")
    assert not guard.allowed("10.2.0.1")
    assert guard.allowed("10.2.0.1", "DB.internal.")
    assert not guard.allowed("10.2.0.1", "db.internal.evil.com")
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "")
    assert not guard.allowed("10.1.2.3"), "the setting is read when asked"


def test_a_metadata_address_is_let_through_only_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for listed in ("169.254.0.0/16", "metadata.google.internal", "0.0.0.0/0", "64:ff9b::/96"):
        monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", listed)
        assert not guard.allowed("169.254.169.254", "metadata.google.internal")
        assert not guard.allowed("64:ff9b::a9fe:a9fe", "metadata.google.internal")
        assert not guard.allowed("::ffff:169.254.169.254", "metadata.google.internal")
    assert not guard.allowed("168.63.129.16")
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "169.254.169.254")
    assert guard.allowed("169.254.169.254")


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "ho st", "https://host", "*"])
def test_an_allow_list_that_cannot_be_read_is_an_error(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", entry)
    with pytest.raises(ConfigurationError, match="IDENTITY_ALLOW_PRIVATE_HOSTS"):
        guard.allowed("10.0.0.1")


@pytest.mark.parametrize(
    ("url", "message"),
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
def test_an_address_that_is_none_of_ours_is_refused_with_advice(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        guard.check_url(url, "base_url")
    assert str(caught.value).startswith("base_url: ")
    assert "SECRET" not in str(caught.value)


def test_a_plain_address_passes_and_loses_its_fragment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert guard.check_url("https://Example.com:443/a?b=c#d") == "https://Example.com:443/a?b=c"
    assert guard.check_url("https://xn--exmple-cua.com") == "https://xn--exmple-cua.com"
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "intranet,127.0.0.0/8")
    assert guard.check_url("http://intranet:8080/x") == "http://intranet:8080/x"
    assert guard.check_url("http://127.0.0.1:8080/x") == "http://127.0.0.1:8080/x"


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
    assert guard.display_url(url) == text


@pytest.mark.parametrize("host", ["/tmp/pg", "a,b", "h.com hostaddr=127.0.0.1", "", "h.com\x00", "a..b", "@x", "127.0.0.1:80"])
def test_a_host_that_is_none_is_not_resolved(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("looked up"))
    with pytest.raises(ConfigurationError):
        guard.resolve(host, 5432)
