"""The connection guard: a connection string, read down to the fields that may come from a user.

libpq does far more with a string than name a server: ``hostaddr`` overrides the host that was
checked, ``host=/tmp`` is a Unix socket, ``service``, ``passfile``, ``sslkey`` and ``sslrootcert``
open files of this machine, ``options`` sets the session, and each ``PG*`` variable of the
environment and ``~/.pgpass`` fill in what was left out. So a few fields are taken out, each host
is resolved and pinned, and everything else is stated explicitly.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.readers.http import guard
from identity_pipeline.readers.sql.certificate import check_authority

ALLOWED = ("host", "port", "dbname", "user", "password", "sslmode", "connect_timeout", "application_name", "target_session_attrs")
WEAK = ("disable", "allow", "prefer", "require", "verify-ca")
_FIXES = {
    "hostaddr": "give the address as host",
    "sslrootcert": "put the certificate's text into ca_certificate",
    "service": "write its fields into the connection string",
    "passfile": "write the password into the connection string",
}
_STATED = {
    "client_encoding": "UTF8",
    "gssencmode": "disable",  # a Kerberos ticket of this machine would replace TLS, certificate check included
    "require_auth": "scram-sha-256,md5,password,none",  # no ticket of this machine
    "sslcertmode": "disable",  # else a certificate in the home folder is sent
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "40000",
}
_NOT_STATABLE = ("PGSERVICE", "PGDATESTYLE", "PGTZ", "PGGEQO")
"""Variables that libpq heeds and no field of a connection string overrides."""
_ENVIRONMENT = threading.Lock()


@dataclass(frozen=True)
class Address:
    """Where to connect and as whom. Shown without its secrets."""

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    dbname: str
    user: str
    password: str | None = field(default=None, repr=False)
    sslmode: str | None = None
    ca_certificate: str | None = field(default=None, repr=False)
    connect_timeout: int = 10
    application_name: str = "identity_pipeline"
    target_session_attrs: str = "any"

    def __str__(self) -> str:
        places = ",".join(f"{host}:{port}" for host, port in zip(self.hosts, self.ports, strict=True))
        return f"postgresql://{places}/{self.dbname}"

    @contextmanager
    def conninfo(self) -> Iterator[str]:
        """A complete connection string to pinned addresses. It holds for as long as the context is open.

        The certificate is always verified against the host's name, whatever weaker ``sslmode`` the
        string asked for, except for hosts in IDENTITY_ALLOW_PRIVATE_HOSTS.

        Raises:
            ConfigurationError: a host may not be connected to, or not without TLS.
            SourceUnavailable: a host does not resolve.
        """
        pinned = [guard.resolve(host, port) for host, port in zip(self.hosts, self.ports, strict=True)]
        sslmode = self._sslmode(pinned)
        with TemporaryDirectory(prefix="identity-postgres-") as folder:
            authority = Path(folder, "ca.pem")
            if self.ca_certificate:
                authority.write_text(self.ca_certificate, "utf-8")
            # an empty value is a stated one: libpq then asks neither the environment nor the home folder
            blank = {o.keyword.decode(): (o.compiled or b"").decode() for o in pq.Conninfo.get_defaults() if o.envvar}
            del blank["service"]
            stated = {key: value for key, value in _STATED.items() if key in blank or key.startswith(("keepalives", "tcp_"))}
            yield make_conninfo(
                **blank
                | stated
                | {
                    "host": ",".join(self.hosts),
                    "hostaddr": ",".join(pinned),
                    "port": ",".join(map(str, self.ports)),
                    "dbname": self.dbname,
                    "user": self.user,
                    "password": self.password or "",
                    "passfile": str(Path(folder, "none")),
                    "sslmode": sslmode,
                    "sslrootcert": str(authority) if self.ca_certificate else DEFAULT_CA_BUNDLE_PATH,
                    "connect_timeout": self.connect_timeout,
                    "application_name": self.application_name,
                    "target_session_attrs": self.target_session_attrs,
                }
            )

    def _sslmode(self, pinned: list[str]) -> str:
        if self.sslmode not in WEAK:
            return "verify-full"
        # both may be listed: the name, or the network its address is in
        if all(guard.is_listed(h) or guard.is_listed(a) for h, a in zip(self.hosts, pinned, strict=True)):
            return self.sslmode
        if self.sslmode == "disable":
            raise ConfigurationError(
                f"connection_string: sslmode=disable would send the password to {self} unencrypted: leave sslmode out "
                "(unencrypted connections are for hosts in IDENTITY_ALLOW_PRIVATE_HOSTS)"
            )
        return "verify-full"


def parse(connection_string: str, ca_certificate: str | None = None) -> Address:
    """The address in a ``postgresql://`` URL or a ``key=value`` string. Looks nothing up.

    Raises:
        ConfigurationError: it cannot be read, lacks a field, or holds one that is not allowed. The
            message names the field, never its value.
    """
    try:
        fields = conninfo_to_dict(connection_string.strip())
    except (ProgrammingError, ValueError):
        raise ConfigurationError(
            "connection_string: it cannot be read: expected postgresql://user:password@host:5432/database "
            "(special characters percent-encoded) or host=… dbname=… user=… password=…"
        ) from None
    for key in fields:
        if key not in ALLOWED:
            fix = _FIXES.get(key, "remove it")
            raise ConfigurationError(f"connection_string: {key} is not allowed: {fix}; allowed are {', '.join(ALLOWED)}")
    texts = {key: str(value) for key, value in fields.items() if value not in (None, "")}
    for key in ("host", "dbname", "user"):
        if key not in texts:
            raise ConfigurationError(f"connection_string: {key} is missing: write postgresql://user:password@host:5432/database")
    hosts = tuple(texts["host"].split(","))
    ports = _ports(texts.get("port", "5432"), len(hosts))
    if texts.get("sslmode", "verify-full") not in {*WEAK, "verify-full"}:
        raise ConfigurationError("connection_string: sslmode is unknown: leave it out, then the certificate is verified")
    seconds = texts.get("connect_timeout", "10")
    return Address(
        hosts=tuple(guard.check_host(host, "connection_string") for host in hosts),
        ports=ports,
        dbname=texts["dbname"],
        user=texts["user"],
        password=texts.get("password"),
        sslmode=texts.get("sslmode"),
        ca_certificate=check_authority(ca_certificate),
        connect_timeout=min(max(int(seconds), 2), 60) if re.fullmatch(r"\d{1,4}", seconds) else 10,
        application_name=texts.get("application_name", "identity_pipeline")[:60],
        target_session_attrs=texts.get("target_session_attrs", "any"),
    )


def _ports(text: str, hosts: int) -> tuple[int, ...]:
    """One port for each host; a single one stands for all, as in libpq."""
    ports = [part or "5432" for part in text.split(",")]
    if not all(re.fullmatch(r"\d{1,5}", port) and 0 < int(port) < 65536 for port in ports) or len(ports) not in {1, hosts}:
        raise ConfigurationError("connection_string: port is not a number from 1 to 65535, one for all hosts or one for each")
    return tuple(int(port) for port in ports) * (hosts if len(ports) == 1 else 1)


@contextmanager
def clean_environment() -> Iterator[None]:
    """Connect without the variables that libpq heeds whatever the connection string says."""
    if not any(name in os.environ for name in _NOT_STATABLE):
        yield
        return
    with _ENVIRONMENT:
        kept = {name: os.environ.pop(name) for name in _NOT_STATABLE if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(kept)
