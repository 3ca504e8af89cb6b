"""The guard: which hosts and addresses a user-given address may lead to.

A name is judged by the addresses it resolves to, at the moment of the connection, and the
connection goes to exactly those: what a validator looked up before proves nothing. Denied are
loopback, private, link-local, shared, reserved, multicast and tunnelled addresses and the clouds'
metadata services. ``IDENTITY_ALLOW_PRIVATE_HOSTS`` lets hosts or address ranges through; a metadata
address only when it stands there itself.
"""

import ipaddress
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, SourceUnavailable

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
        return addresses(host, port)[0]
    except OSError as error:
        raise SourceUnavailable(f"the host {host} does not resolve ({type(error).__name__}): check its name") from None


def addresses(host: str, port: int) -> list[str]:
    """All addresses of ``host`` in the resolver's order, each allowed.

    Raises:
        ConfigurationError: one of them is denied.
        OSError: the name does not resolve.
    """
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    for address in found:
        check_address(address, host)
    return list(dict.fromkeys(found))


def check_address(address: str, host: str) -> None:
    """Refuse a connection to the IP ``address`` that is not allowed for ``host``.

    Raises:
        ConfigurationError: it is not.
    """
    if not allowed(address, host):
        raise ConfigurationError(_refusal(host))
