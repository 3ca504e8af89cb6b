"""The connection guard: a connection string, read down to the fields that may come from a user.

Drivers take far more in a string than the name of a server: ``unix_socket`` goes around the host that was
checked, ``read_default_file`` and ``ssl_key`` open files of this machine, ``local_infile`` lets the server ask for
any file of it, ``init_command`` runs SQL. So a few fields are taken out, the host is resolved and
pinned, and everything else is stated explicitly.
"""

import re
import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.readers.http import guard
from identity_pipeline.readers.sql.certificate import check_authority

FORM = "mysql://user:password@host:3306/database"
ALLOWED = ("ssl-mode", "connect-timeout")
MODES = ("DISABLED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")
_SCHEMES = ("mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql")
_FIXES = {
    "ssl-ca": "put the certificate's text into ca_certificate",
    "ssl": "leave it out, then the certificate is verified",
    "ssl-verify-cert": "leave it out, then the certificate is verified",
    "ssl-verify-identity": "leave it out, then the certificate is verified",
    "charset": "leave it out, text is always read as utf8mb4",
}
_REFUSED = frozenset(
    {
        "local-infile",
        "allow-local-infile",
        "read-default-file",
        "read-default-group",
        "option-files",
        "unix-socket",
        "socket",
        "init-command",
        "client-flag",
        "client-flags",
        "plugin-dir",
        "auth-plugin",
        "auth-plugin-map",
        "default-auth",
        "allow-public-key-retrieval",
        "server-public-key",
        "ssl-cert",
        "ssl-key",
        "ssl-key-password",
        "ssl-capath",
        "ssl-cipher",
        "ssl-disabled",
        "sql-mode",
        "use-unicode",
        "conv",
        "cursorclass",
        "named-pipe",
        "compress",
        "bind-address",
        "host",
        "port",
        "user",
        "password",
        "passwd",
        "database",
        "db",
        "autocommit",
        "defer-connect",
        "read-timeout",
        "write-timeout",
        "max-allowed-packet",
    }
)
"""Parameters of the drivers. Others are not repeated in a message: they may be anything, a part of a password too."""


@dataclass(frozen=True)
class Address:
    """Where to connect and as whom. Shown without its secrets. ``database`` is that of a table whose name has none."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str | None = None
    ssl_mode: str = "VERIFY_IDENTITY"
    ca_certificate: str | None = field(default=None, repr=False)
    connect_timeout: int = 10

    def __str__(self) -> str:
        return f"mysql://{self.host}:{self.port}/{self.database or ''}"

    def pinned(self) -> str:
        """The address to connect to.

        Raises:
            ConfigurationError: the host may not be connected to.
            SourceUnavailable: it does not resolve.
        """
        return guard.resolve(self.host, self.port)

    def tls(self, pinned: str) -> ssl.SSLContext | None:
        """How the wire to ``pinned`` is protected, None: not at all.

        The certificate is always verified against the host's name, whatever weaker ``ssl-mode`` the
        string asked for, except for hosts in IDENTITY_ALLOW_PRIVATE_HOSTS.

        Raises:
            ConfigurationError: the password would be sent unencrypted, or ``ca_certificate`` cannot be read.
        """
        listed = guard.is_listed(self.host) or guard.is_listed(pinned)
        if self.ssl_mode == "DISABLED":
            if listed:
                return None
            raise ConfigurationError(
                f"connection_string: ssl-mode=DISABLED would send the password to {self} unencrypted: leave ssl-mode out "
                "(unencrypted connections are for hosts in IDENTITY_ALLOW_PRIVATE_HOSTS)"
            )
        try:
            made = ssl.create_default_context(cadata=self.ca_certificate, cafile=None if self.ca_certificate else DEFAULT_CA_BUNDLE_PATH)
        except (ssl.SSLError, ValueError):
            raise ConfigurationError("ca_certificate: it cannot be read: copy the text of the certificate again") from None
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the authority that a server makes for itself is not strict
        if listed and self.ssl_mode != "VERIFY_IDENTITY":
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE if self.ssl_mode == "REQUIRED" else ssl.CERT_REQUIRED
        return made


def parse(connection_string: str, ca_certificate: str | None = None) -> Address:
    """The address in a ``mysql://`` or ``mariadb://`` URL. Looks nothing up.

    Raises:
        ConfigurationError: it cannot be read, lacks a field, or holds one that is not allowed. The
            message names the field, never its value.
    """
    try:
        parts = urlsplit(connection_string.strip())
        port = parts.port or 3306
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in _SCHEMES or parts.fragment or not port or "/" in parts.path[1:]:
        raise ConfigurationError(f"connection_string: it cannot be read: expected {FORM} (special characters percent-encoded)")
    given = {"host": parts.hostname, "user": unquote(parts.username or ""), "database": unquote(parts.path[1:])}
    for name in ("host", "user"):
        if not given[name]:
            raise ConfigurationError(f"connection_string: {name} is missing: write {FORM}")
    for name, value in given.items():
        if re.search(r"[\x00-\x1f\x7f]", value or ""):
            raise ConfigurationError(f"connection_string: {name} holds a control character: type it again")
    options = _options(parts.query)
    mode = options.get("ssl-mode", "VERIFY_IDENTITY").upper()
    if mode not in MODES:
        raise ConfigurationError("connection_string: ssl-mode is unknown: leave it out, then the certificate is verified")
    seconds = options.get("connect-timeout", "10")
    return Address(
        host=guard.check_host(str(given["host"]), "connection_string"),
        port=port,
        user=str(given["user"]),
        password=unquote(parts.password or ""),
        database=given["database"] or None,
        ssl_mode=mode,
        ca_certificate=check_authority(ca_certificate),
        connect_timeout=min(max(int(seconds), 2), 60) if re.fullmatch(r"\d{1,4}", seconds) else 10,
    )


def _options(query: str) -> dict[str, str]:
    options = {name.replace("_", "-"): value for name, value in parse_qsl(query, keep_blank_values=True)}
    for name in options:
        if name not in ALLOWED:
            shown = name if name in _FIXES or name in _REFUSED else "a parameter"
            fix = _FIXES.get(name, "remove it")
            raise ConfigurationError(f"connection_string: {shown} is not allowed: {fix}; allowed are {', '.join(ALLOWED)}")
    return options
