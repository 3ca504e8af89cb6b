"""The network guard: which hosts a user-given address may lead to, and connections that keep to it.

A name is judged by the addresses it resolves to, at the moment of the connection, and the
connection goes to exactly those: what a validator looked up before proves nothing. Denied are
loopback, private, link-local, shared, reserved, multicast and tunnelled addresses and the clouds'
metadata services. ``IDENTITY_ALLOW_PRIVATE_HOSTS`` lets hosts or address ranges through; a metadata
address only when it stands there itself.
"""

import ipaddress
import logging
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection
from urllib3.util.ssl_ import create_urllib3_context

from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, SourceRejected, SourceUnavailable

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRAVELS = frozenset({"accept", "accept-encoding", "user-agent", "if-none-match", "if-modified-since"})
"""Request headers that follow to another host. Any other may be a credential."""

_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        (
            "169.254.169.254",  # AWS, Azure, Google Cloud, Oracle, DigitalOcean
            "169.254.170.2",  # AWS ECS task credentials
            "169.254.170.23",  # AWS EKS pod identity
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",  # Google Cloud
            "100.100.100.200",  # Alibaba Cloud
            "168.63.129.16",  # Azure WireServer: a public address, served to every machine
            "192.0.0.192",  # Oracle Cloud classic
        ),
    )
)
# ipaddress.is_global is no filter: it passes multicast, 6to4 and the Azure address, and is_private passes 100.64/10.
_DENIED4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT
            "127.0.0.0/8",
            "168.63.129.16/32",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",  # benchmarking
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",
        ),
    )
)
_UNICAST6 = tuple(map(ipaddress.IPv6Network, ("2000::/3", "::ffff:0:0/96", "64:ff9b::/96")))
"""All other IPv6 space is local, multicast, deprecated or not assigned."""
_DENIED6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "3fff::/20",
        ),
    )
)
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_SHOWN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,15}://)?(?P<authority>[^/?#\\]*)(?P<path>[^?#]*)")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def allowed(address: str, host: str = "") -> bool:
    """True when a connection to the IP ``address`` is allowed for someone who asked for ``host``.

    Raises:
        ConfigurationError: IDENTITY_ALLOW_PRIVATE_HOSTS holds an entry that is neither a host name nor an address range.
    """
    try:
        outer = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    faces = (outer, *_embedded(outer))
    if not any(_denied(face) for face in faces):
        return True
    names, networks = _listed()
    if any(face in _METADATA for face in faces):
        return any(network.num_addresses == 1 and outer in network for network in networks)
    return host.lower().rstrip(".") in names or any(outer in network for network in networks)


def _embedded(address: _Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to: mapped, compatible, NAT64, 6to4, Teredo, ISATAP."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    bits = int(address)
    low = ipaddress.IPv4Address(bits & 0xFFFFFFFF)
    # 64:ff9b:1::/48 is NAT64 of one's own network, whose prefix length we cannot know: it is denied as a whole
    if bits >> 32 in {0, 0xFFFF, 0x64FF9B << 64} or (bits >> 32) & 0xFFFFFFFF in _ISATAP:
        yield low
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo


def _denied(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return any(address in network for network in _DENIED4)
    return not any(address in network for network in _UNICAST6) or any(address in network for network in _DENIED6)


def _listed() -> tuple[frozenset[str], tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]]:
    """Names and address ranges of IDENTITY_ALLOW_PRIVATE_HOSTS."""
    names, networks = set(), []
    for entry in settings.allowed_private_hosts():
        try:
            networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
        except ValueError:
            if "/" in entry or not _NAME.fullmatch(entry):
                raise ConfigurationError(
                    f"IDENTITY_ALLOW_PRIVATE_HOSTS: {entry!r} is neither a host name nor an address range such as 10.0.0.0/8"
                ) from None
            names.add(entry.lower().rstrip("."))
    return frozenset(names), tuple(networks)


def is_listed(host: str) -> bool:
    """True if IDENTITY_ALLOW_PRIVATE_HOSTS names ``host`` itself, or an address range that it is in.

    Raises:
        ConfigurationError: IDENTITY_ALLOW_PRIVATE_HOSTS holds an entry that is neither.
    """
    names, networks = _listed()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().rstrip(".") in names
    return any(address in network for network in networks)


def check_host(host: str, setting: str = "host") -> str:
    """``host`` if it is the plain name or IP address of a host that may be asked. Looks nothing up.

    Raises:
        ConfigurationError: it is not; the message names ``setting``.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # 127.1, 0x7f.1 and 2130706433 are no addresses to ipaddress, but 127.0.0.1 to the resolver
        numeric = re.fullmatch(r"\d+|0[xX][0-9A-Fa-f]*", host.rstrip(".").rpartition(".")[2])
        if numeric or len(host) > 253 or not _NAME.fullmatch(host):
            raise ConfigurationError(
                f"{setting}: the host is not a plain host name or IP address: write it in ASCII letters, digits, "
                "hyphens and dots (an international name in its xn-- form)"
            ) from None
        if "." not in host.rstrip(".") and not is_listed(host):
            raise ConfigurationError(_refusal(host, setting)) from None
        return host
    if not allowed(host, host):
        raise ConfigurationError(_refusal(host, setting))
    return host


def _refusal(host: str, setting: str = "") -> str:
    return (
        f"{f'{setting}: ' if setting else ''}the host {host} is in a private or reserved network: if this project may "
        "read from there, add the host to IDENTITY_ALLOW_PRIVATE_HOSTS"
    )


def check_url(url: str, setting: str = "url") -> str:
    """``url``, without its fragment, if it is one that may be asked. Looks nothing up.

    That is ``https://`` on port 443; other ports and ``http://`` only for hosts in
    IDENTITY_ALLOW_PRIVATE_HOSTS.

    Raises:
        ConfigurationError: it is not; the message names ``setting`` and shows no query.
    """
    if _UNSAFE.search(url):
        raise ConfigurationError(f"{setting}: the address holds a space, a backslash or a control character: percent-encode it")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(f"{setting}: the address cannot be read: expected https://host/path") from None
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ConfigurationError(f"{setting}: {display_url(url)} is not an https:// address: only those are read")
    if "@" in parts.netloc:
        raise ConfigurationError(f"{setting}: the address holds a user name or password: remove it; credentials have their own setting")
    authority = _AUTHORITY.fullmatch(parts.netloc)
    if not authority:
        raise ConfigurationError(
            f"{setting}: the host is not a plain host name or IP address: write it in ASCII letters, digits, "
            "hyphens and dots (an international name in its xn-- form)"
        )
    host = check_host(authority["host"].strip("[]"), setting)
    if parts.scheme == "http" and not is_listed(host):
        raise ConfigurationError(
            f"{setting}: {display_url(url)} is not encrypted: use https:// (plain http:// is for hosts in IDENTITY_ALLOW_PRIVATE_HOSTS)"
        )
    if parts.scheme == "https" and authority["port"] not in {None, "443"} and not is_listed(host):
        raise ConfigurationError(
            f"{setting}: {display_url(url)} is not on port 443: other ports are for hosts in IDENTITY_ALLOW_PRIVATE_HOSTS"
        )
    if authority["port"] and not 0 < int(authority["port"]) < 65536:
        raise ConfigurationError(f"{setting}: {display_url(url)} has no such port: it is a number up to 65535")
    return url.partition("#")[0]


def display_url(url: str) -> str:
    """``url`` for messages and keys: no query, no fragment, no user, nothing that is not printable."""
    parts = _SHOWN.match(url)
    if not parts:  # pragma: no cover - every part is optional
        return ""
    text = (parts["scheme"] or "") + parts["authority"].rpartition("@")[2] + parts["path"]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[:300]


def resolve(host: str, port: int) -> str:
    """The address to connect to for ``host``: resolved once, all of its addresses allowed.

    For clients that dial by themselves (databases, SFTP): give them this address, and ``host``
    only for the certificate's name.

    Raises:
        ConfigurationError: the host is not a plain name, or one of its addresses is denied.
        SourceUnavailable: the name does not resolve.
    """
    check_host(host)
    try:
        return _addresses(host, port)[0]
    except OSError as error:
        raise SourceUnavailable(f"the host {host} does not resolve ({type(error).__name__}): check its name") from None


def _addresses(host: str, port: int) -> list[str]:
    """All addresses of ``host`` in the resolver's order, each allowed."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    for address in found:
        if not allowed(address, host):
            raise ConfigurationError(_refusal(host))
    return list(dict.fromkeys(found))


def _dial(connection: HTTPConnection) -> socket.socket:
    """A socket to an allowed address of the connection's host. No byte has been sent on it."""
    host = connection._dns_host.strip("[]")  # noqa: SLF001 - urllib3's name for the host as it was asked for
    try:
        addresses = _addresses(host, connection.port)
    except (OSError, UnicodeError) as error:
        failure = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
        raise NameResolutionError(host, connection, failure) from error
    failed: OSError | None = None
    for address in addresses:
        try:
            sock = create_connection(
                (address, connection.port),
                connection.timeout,
                source_address=connection.source_address,
                socket_options=connection.socket_options,
            )
        except OSError as error:
            failed = error
            continue
        if not allowed(sock.getpeername()[0], host):
            sock.close()
            raise ConfigurationError(_refusal(host))
        return sock
    if isinstance(failed, TimeoutError):
        raise ConnectTimeoutError(connection, f"Connection to {host} timed out") from failed
    raise NewConnectionError(connection, f"Failed to connect to {host}: {failed}") from failed


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _dial(self)


class _TLSConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _dial(self)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType] - as urllib3 itself does


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection  # pyright: ignore[reportAssignmentType] - as urllib3 itself does


class _Adapter(HTTPAdapter):
    """Sends to checked addresses over checked connections. ``context`` is TLS as we want it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        check_url(request.url or "")
        return super().send(request, *args, **options)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - requests calls it by name
        """None: redirects are followed by :func:`follow`, never by requests."""
        return None


def session() -> requests.Session:
    """A session whose every connection passes the guard.

    It reads no proxy and no ``.netrc`` from the environment, follows no redirect, and verifies
    certificates against the bundles that REQUESTS_CA_BUNDLE and SSL_CERT_FILE name, else the public one.

    Raises:
        ConfigurationError: such a bundle does not exist or is none.
    """
    logging.getLogger("urllib3").setLevel(logging.INFO)  # at DEBUG it tells every address with its query, where tokens and signatures are
    client = _Session()
    client.trust_env = False  # a proxy would be the peer that is checked, .netrc would add credentials
    context = create_urllib3_context(ssl_minimum_version=ssl.TLSVersion.TLSv1_2)
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        if bundle := os.environ.get(name):
            try:
                folder = Path(bundle).is_dir()
                context.load_verify_locations(None if folder else bundle, bundle if folder else None)
            except OSError as error:
                raise ConfigurationError(f"{name} names no certificate bundle ({type(error).__name__}): correct or unset it") from None
            client.verify = bundle  # requests would add the public one otherwise
    for scheme in ("http://", "https://"):
        client.mount(scheme, _Adapter(context))
    return client


def follow(
    client: requests.Session,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    timeout: tuple[float, float] = (10, 30),
) -> requests.Response:
    """GET ``url``, streamed, through at most :data:`MAX_REDIRECTS` redirects, each checked like the first address.

    Headers that may carry a credential do not travel to another host, and https never becomes
    http. The final address is the answer's ``url``; the caller closes the answer.

    Raises:
        ConfigurationError: the address or a redirect leads where we may not go.
        SourceRejected: more redirects than that, or one without a target.
        requests.RequestException: as the session raises it.
    """
    url, sent = check_url(url), dict(headers or {})
    for _ in range(MAX_REDIRECTS + 1):
        response = client.get(url, headers=sent, timeout=timeout, stream=True)
        if response.status_code not in REDIRECTS:
            return response
        response.close()
        target = response.headers.get("Location", "").strip()
        if not target:
            raise SourceRejected(f"GET {display_url(url)} answered {response.status_code} without a Location: check the address")
        onward = check_url(urljoin(url, target), f"redirect from {display_url(url)}")
        before, after = urlsplit(url), urlsplit(onward)
        if before.scheme == "https" and after.scheme != "https":
            raise ConfigurationError(
                f"GET {display_url(url)} redirects to {display_url(onward)}, which is not encrypted: give an https:// address"
            )
        if before[:2] != after[:2]:
            sent = {name: value for name, value in sent.items() if name.lower() in _TRAVELS}
        url = onward
    raise SourceRejected(f"GET {display_url(url)} redirects more than {MAX_REDIRECTS} times: give the address of the file itself")
