"""The guards of the SQL readers: names, connection strings, sessions, marks."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from identity_pipeline.core.cursor import Cursor
from identity_pipeline.core.errors import ConfigurationError, CredentialError, PipelineError, SourceUnavailable
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.catalog import Column, Table
from identity_pipeline.readers.sql.cursor import CursorKind, FollowedColumn
from identity_pipeline.readers.sql.postgres import address, safe_postgres_identifier, session, stream
from identity_pipeline.readers.sql.postgres.catalog import DIALECT
from identity_pipeline.readers.sql.postgres.session import read_only
from identity_pipeline_tests.postgres_source import HOSTILE_NAMES

SECRET = "canary-of-a-secret"

# names


@pytest.mark.parametrize(
    ("name", "readings"),
    [
        ("contacts", [("public", "contacts")]),
        ("crm.contacts", [("crm", "contacts")]),
        ("CRM.Contacts", [("crm", "contacts"), ("CRM", "Contacts")]),
        ('CRM."Contacts"', [("crm", "Contacts"), ("CRM", "Contacts")]),
        ('"a.b"."c""d"', [("a.b", 'c"d')]),
        ("MÜLLER", [("public", "mÜller"), ("public", "MÜLLER"), ("public", "mu\u0308ller"), ("public", "MU\u0308LLER")]),
        ("Mu\u0308ller", [("public", "mu\u0308ller"), ("public", "Mu\u0308ller"), ("public", "müller"), ("public", "Müller")]),
        ("e\u0301" * 31, [("public", "\u00e9" * 31)]),
        ("order", [("public", "order")]),
        ("_t$1", [("public", "_t$1")]),
    ],
)  # fmt: skip
def test_a_name_is_read_as_the_server_reads_it(name: str, readings: list):
    assert list(DIALECT.readings(name)) == readings


@pytest.mark.parametrize(
    "name",
    [*HOSTILE_NAMES, "a.b.c", "a b", "a;b", 'a"b', '"a"b', 'a"b"', '"a', "1a", "a.", ".a", "$a", "a\tb", "a\u00a0b", "a\u200bb",
     "a\u2028b", "\u0308a", '"a\x00"', '"\udc80"', "ä" * 32, '"' + "ä" * 32 + '"', "pg_catalog.x", '"pg_temp_3".x', "Information_Schema.x"],
)  # fmt: skip
def test_rejects_unsafe_table_name(name: str):
    with pytest.raises(ConfigurationError, match=r"^table: "):
        safe_postgres_identifier(name)


def test_a_safe_identifier_is_the_name_as_the_server_reads_it_in_quotes():
    assert safe_postgres_identifier("CRM.Contacts") == '"crm"."contacts"'
    assert safe_postgres_identifier('"a""b"') == '"public"."a""b"'


def test_a_refused_name_is_refused_under_the_setting_that_holds_it():
    with pytest.raises(ConfigurationError, match=r"^view: "):
        safe_postgres_identifier("a b", "view")


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=15))
def test_any_name_in_quotes_is_that_name_before_any_other(name: str):
    assert DIALECT.readings(DIALECT.quoted(["s", name]))[0] == ("s", name)


@given(st.text(max_size=40))
def test_a_reading_has_two_parts_that_fit(name: str):
    with contextlib.suppress(ConfigurationError):
        for reading in DIALECT.readings(name):
            assert [1 <= len(part.encode()) <= 63 and "\x00" not in part for part in reading] == [True, True]


# connection strings


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("postgresql://u:p@db.example.org/d?hostaddr=127.0.0.1", "hostaddr"),
        ("host=db.example.org dbname=d user=u service=x", "service"),
        ("postgresql://u@db.example.org/d?passfile=/etc/passwd", "passfile"),
        ("postgresql://u@db.example.org/d?options=-c%20role%3Dx", "options"),
        ("postgresql://u@db.example.org/d?sslkey=/etc/shadow", "sslkey"),
        ("postgresql://u@db.example.org/d?sslcert=/etc/shadow", "sslcert"),
        ("postgresql://u@db.example.org/d?sslrootcert=/etc/passwd", "ca_certificate"),
        ("postgresql://u@db.example.org/d?sslkeylogfile=/tmp/x", "sslkeylogfile"),
        ("postgresql://u@db.example.org/d?replication=database", "replication"),
        ("postgresql://u@db.example.org/d?requirepeer=root", "requirepeer"),
        ("postgresql://u@db.example.org/d?sslmode=off", "sslmode"),
        ("postgresql://u@%2Ftmp%2Fpg/d", "plain host name"),
        ("host=/var/run/postgresql dbname=d user=u", "plain host name"),
        ("host=@abstract dbname=d user=u", "plain host name"),
        ("postgresql://u@db.example.org,%2Ftmp/d", "plain host name"),
        ("postgresql:///d?user=u", "host"),
        ("postgresql://u@db.example.org", "dbname"),
        ("postgresql://db.example.org/d", "user"),
        ("postgresql://u@db.example.org:0/d", "port"),
        ("postgresql://u@db.example.org:1,db2.example.org:2,db3.example.org:3/d?port=1,2", "port"),
        ("postgresql://u@10.1.2.3/d", "IDENTITY_ALLOW_PRIVATE_HOSTS"),
        ("postgresql://u@[::1]/d", "IDENTITY_ALLOW_PRIVATE_HOSTS"),
        ("postgresql://u@localhost/d", "IDENTITY_ALLOW_PRIVATE_HOSTS"),
        ("postgresql://u@2130706433/d", "plain host name"),
        ("nonsense", "cannot be read"),
        ("mysql://u@db.example.org/d", "cannot be read"),
        ("", "host"),
    ],
)  # fmt: skip
def test_a_connection_string_that_does_more_is_refused_by_the_fields_name(text: str, field: str):
    with pytest.raises(ConfigurationError, match=field):
        address.parse(text)


@pytest.mark.parametrize(
    "text",
    [f"postgresql://u:{SECRET}@db.example.org/d?hostaddr={SECRET}", f"host=x password={SECRET} {SECRET}", f"postgresql://u:{SECRET}@",
     f"postgresql://u:{SECRET}%zz@db.example.org/d", f"{SECRET}={SECRET}", f"host=/{SECRET} dbname=d user=u",
     f"postgresql://u:{SECRET}@db.example.org:99999/d", f"postgresql://u:p@db.example.org/d?sslmode={SECRET}"],
)  # fmt: skip
def test_no_value_of_a_refused_connection_string_is_shown(text: str):
    with pytest.raises(ConfigurationError) as refused:
        address.parse(text)
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_an_address_is_shown_without_its_password():
    parsed = address.parse(f"postgresql://u:{SECRET}@db.example.org/d?application_name=crm")
    assert SECRET not in repr(parsed) + str(parsed)
    assert str(parsed) == "postgresql://db.example.org:5432/d"


def test_both_spellings_of_a_connection_string_are_the_same_address():
    url = address.parse("postgresql://u:p%20%27x@db.example.org:6432,db2.example.org:6432/d?target_session_attrs=standby")
    assert url == address.parse(
        r"host=db.example.org,db2.example.org port=6432 user=u password='p \'x' dbname=d target_session_attrs=standby"
    )
    assert (url.hosts, url.ports) == (("db.example.org", "db2.example.org"), (6432, 6432))


def _stated(text: str) -> dict:
    with address.parse(text).conninfo() as conninfo:
        return conninfo_to_dict(conninfo)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The addresses that a name resolves to, one for each look-up."""
    table: dict[str, list[str]] = {"db.example.org": ["93.184.216.34"], "db.lan": ["10.1.2.3"]}

    def resolve(host, port, *_args, **_options):
        found = table.get(host)
        answer = host if found is None else found.pop(0) if len(found) > 1 else found[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.delenv("IDENTITY_ALLOW_PRIVATE_HOSTS", raising=False)
    return table


@pytest.mark.parametrize(
    "sslmode", ["", "?sslmode=allow", "?sslmode=prefer", "?sslmode=require", "?sslmode=verify-ca", "?sslmode=verify-full"]
)
def test_the_certificate_of_a_public_host_is_always_verified_by_name(names: dict, sslmode: str):
    stated = _stated(f"postgresql://u@db.example.org/d{sslmode}")
    assert (stated["host"], stated["hostaddr"], stated["sslmode"]) == ("db.example.org", "93.184.216.34", "verify-full")


def test_a_public_host_without_tls_is_refused(names: dict):
    with pytest.raises(ConfigurationError, match="IDENTITY_ALLOW_PRIVATE_HOSTS"):
        _stated("postgresql://u@db.example.org/d?sslmode=disable")


@pytest.mark.parametrize("listed", ["db.lan", "10.1.0.0/16", "10.1.2.3"])
def test_a_listed_host_may_go_without_tls_and_is_verified_unless_it_says_so(names: dict, listed: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", listed)
    assert _stated("postgresql://u@db.lan/d?sslmode=disable")["sslmode"] == "disable"
    assert _stated("postgresql://u@db.lan/d")["sslmode"] == "verify-full"


def test_one_listed_host_does_not_weaken_another(names: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "db.lan")
    assert _stated("postgresql://u@db.lan,db.example.org/d?sslmode=prefer")["sslmode"] == "verify-full"


def test_a_name_that_leads_to_a_private_network_is_refused(names: dict):
    names["db.example.org"] = ["10.9.9.9"]
    with pytest.raises(ConfigurationError, match="private or reserved"):
        _stated("postgresql://u@db.example.org/d")


def test_a_name_is_looked_up_once_and_that_address_is_connected_to(names: dict):
    names["db.example.org"] = ["93.184.216.34", "127.0.0.1"]
    assert _stated("postgresql://u@db.example.org/d")["hostaddr"] == "93.184.216.34"
    assert names["db.example.org"] == ["127.0.0.1"]


def test_every_field_that_the_environment_could_fill_is_stated(names: dict):
    stated = _stated("postgresql://u@db.example.org/d")
    fillable = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.envvar}
    assert fillable - set(stated) == {"service"}


def test_the_certificate_authority_is_gone_with_the_connection(names: dict):
    pem = trustme.CA().cert_pem.bytes().decode()
    with address.parse("postgresql://u@db.example.org/d", pem).conninfo() as conninfo:
        path = Path(str(conninfo_to_dict(conninfo)["sslrootcert"]))
        assert path.read_text() == pem
    assert not path.parent.exists()


def test_a_certificate_authority_is_text_and_no_path():
    with pytest.raises(ConfigurationError, match="ca_certificate"):
        address.parse("postgresql://u@db.example.org/d", "/etc/passwd")


# TLS, against a server that speaks the first words of the protocol


class Server(threading.Thread):
    """Answers each SSLRequest, then refuses the password; keeps what was sent to it in clear or through TLS."""

    def __init__(self, context: ssl.SSLContext | None):
        super().__init__(daemon=True)
        self.context, self.received = context, b""
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def run(self):
        """Talk to one after the other until closed."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                with contextlib.suppress(OSError), connection:
                    self.talk(connection)

    def talk(self, connection: socket.socket):
        """Answer as a server that wants TLS, or as one that has none."""
        connection.settimeout(5)
        self.received += connection.recv(8)
        connection.sendall(b"S" if self.context else b"N")
        if self.context is None:
            self.received += connection.recv(1000)
            return
        with self.context.wrap_socket(connection, server_side=True) as tls:
            self.received += tls.recv(1000)
            body = b"SFATAL\0C28P01\0Mpassword authentication failed for user\0\0"
            tls.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@contextlib.contextmanager
def _serving(context: ssl.SSLContext | None) -> Iterator[Server]:
    server = Server(context)
    server.start()
    try:
        yield server
    finally:
        server.socket.shutdown(socket.SHUT_RDWR)
        server.socket.close()
        server.join(5)


def _context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def _connect(server: Server, pem: str | None, sslmode: str = "") -> None:
    with read_only(address.parse(f"postgresql://u:{SECRET}@db.lan:{server.port}/d{sslmode}", pem)):
        pass


def _pem(authority: trustme.CA) -> str:
    return authority.cert_pem.bytes().decode()


@pytest.fixture
def lan(names: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    names["db.lan"] = ["127.0.0.1"]
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "db.lan")


def test_a_server_with_the_right_certificate_is_asked(lan: None, authority: trustme.CA):
    with _serving(_context(authority, "db.lan")) as server:
        with pytest.raises(CredentialError):
            _connect(server, _pem(authority))
        assert b"identity_pipeline" in server.received
        assert b"options" not in server.received


@pytest.mark.parametrize(("name", "trusted", "advice"), [("other.lan", True, "another name"), ("db.lan", False, "ca_certificate")])
def test_a_server_with_a_wrong_certificate_is_sent_nothing(lan: None, authority: trustme.CA, name: str, trusted: bool, advice: str):
    with _serving(_context(authority, name)) as server:
        with pytest.raises(ConfigurationError, match=advice):
            _connect(server, _pem(authority) if trusted else None)
        assert len(server.received) == 8


def test_a_server_without_tls_is_sent_nothing(lan: None):
    with _serving(None) as server:
        with pytest.raises(ConfigurationError, match="no TLS"):
            _connect(server, None)
        assert len(server.received) == 8


def test_a_certificate_authority_that_cannot_be_read_is_a_configuration_error(lan: None, authority: trustme.CA):
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    with _serving(_context(authority, "db.lan")) as server, pytest.raises(ConfigurationError, match="ca_certificate"):
        _connect(server, broken)


@pytest.mark.parametrize("name", ["certificate", "no pg_hba.conf entry", "password authentication failed", "database x does not exist"])
def test_a_name_in_the_servers_words_is_not_taken_for_them(name: str):
    error = psycopg.OperationalError(f'connection to server at "{name}", port 1 failed: Connection refused')
    assert isinstance(session._refusal(address.parse("postgresql://u@db.example.org/d"), error), SourceUnavailable)


def test_something_else_at_the_port_is_retryable(lan: None):
    with _serving(None) as server, pytest.raises(SourceUnavailable) as refused:
        _connect(server, None, "?sslmode=prefer")
    assert SECRET not in str(refused.value)


# sessions


@pytest.fixture
def server(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> address.Address:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    return address.parse(f"{postgres_url}?sslmode=disable")


def test_a_session_can_only_read(server: address.Address):
    for statement in (b"CREATE TABLE pg_catalog.x ()", b"CREATE TABLE public.x ()", b"SELECT pg_catalog.lo_create(0)"):
        with pytest.raises(PipelineError, match="25006"), read_only(server) as reader:
            reader.execute(statement)


def test_a_session_gives_up_in_finite_time_and_means_one_thing_by_a_value(server: address.Address):
    names = ("search_path", "timezone", "datestyle", "extra_float_digits", "statement_timeout", "lock_timeout",
             "idle_in_transaction_session_timeout", "application_name", "transaction_read_only", "client_encoding")  # fmt: skip
    with read_only(server) as reader:
        shown = {name: (reader.execute(f"SHOW {name}".encode()).fetchone() or {}).popitem()[1] for name in names}
        wire = socket.socket(fileno=socket.dup(reader.pgconn.socket))
        with wire:
            assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 40_000
    assert list(shown.values()) == ["", "UTC", "ISO, YMD", "1", "4h", "5s", "10min", "identity_pipeline", "on", "UTF8"]


# marks


def test_text_is_compared_by_its_bytes():
    table = Table(("public", "t"), (Column("c", "text", "text", "text"),), dialect=DIALECT)
    statement = stream._select(table, FollowedColumn("c", "text", "text"), Window(Cursor("c", "text"), "x")).as_string()
    assert """WHERE "c"::text COLLATE "C" >= current_setting('identity.lower') COLLATE "C" OR """ in statement


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _limit(kind: CursorKind, now: datetime, timezone: str = "UTC") -> datetime:
    return FollowedColumn("c", kind, "", timezone).mark_limit(now)


@pytest.mark.parametrize("minutes", range(0, 300, 20))
def test_no_row_of_the_repeated_hour_is_older_than_the_mark(minutes: int):
    """Berlin repeats 02:00 to 03:00 on 2026-10-25; the later pass is read as the earlier."""
    now = _at("2026-10-24T23:00") + timedelta(minutes=minutes)
    mark = _limit("local", now, "Europe/Berlin")
    for later in (now + timedelta(minutes=step) for step in range(0, 180, 10)):
        berlin_summer = timedelta(hours=2) if later < _at("2026-10-25T01:00") else timedelta(hours=1)
        wall = later + berlin_summer
        read_as = wall - (timedelta(hours=2) if wall < _at("2026-10-25T03:00") else timedelta(hours=1))
        assert read_as >= mark


def test_a_mark_follows_at_once_where_nothing_repeats():
    now = _at("2026-07-01T12:00")
    assert _limit("local", now, "Europe/Berlin") == now
    assert _limit("local", _at("2026-10-25T00:30")) == _at("2026-10-25T00:30")
    assert _limit("instant", _at("2026-10-25T00:30"), "Europe/Berlin") == _at("2026-10-25T00:30")


def test_a_mark_stays_a_day_behind_for_dates():
    assert _limit("date", _at("2026-07-02T12:00")) == _at("2026-07-01T12:00")
