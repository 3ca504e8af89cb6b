"""A table of a real MariaDB server: nothing lost, nothing changed, nothing executed, nothing sent to whom it is not for."""

import contextlib
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pymysql
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from identity_pipeline.core.cursor import Cursor
from identity_pipeline.core.errors import (
    ConfigurationError,
    ContractBroken,
    CredentialError,
    PermissionDenied,
    PipelineError,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.core.secret import StoredToken
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.mysql import MysqlEngine, address, catalog, commits, safe_mysql_identifier, stream
from identity_pipeline.readers.sql.mysql.names import DIALECT
from identity_pipeline.readers.sql.mysql.session import SETTINGS, read_only
from identity_pipeline_tests.mysql_server import server
from identity_pipeline_tests.mysql_source import HOSTILE_NAMES, Customer, customer
from identity_pipeline_tests.sql_load import load

SECRET = "canary-of-a-secret"


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Customer]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    with customer() as made:
        yield made


@pytest.fixture
def contacts(source: Customer) -> Customer:
    source.run(
        "CREATE TABLE contacts (id bigint PRIMARY KEY, email varchar(100), updated_at datetime(6), note text)",
        "INSERT INTO contacts SELECT seq, concat(seq, '@example.org'), '2026-04-01' + INTERVAL seq HOUR, NULL FROM seq_1_to_5",
    )
    return source


# names


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "a b", "a;b", "a`b", "`a`b", "`a", "a\tb", "a\u00a0b", "a\u200bb", "a\u2028b", "12"])
def test_rejects_unsafe_table_name(name: str):
    with pytest.raises(ConfigurationError, match=r"^table: "):
        safe_mysql_identifier(name, database="crm")


@pytest.mark.parametrize(
    ("name", "safe"),
    [("contacts", "`crm`.`contacts`"), ("Shop.Contacts", "`Shop`.`Contacts`"), ("`a``b`", "`crm`.`a``b`"), ("1a", "`crm`.`1a`"),
     ("`x.y`.z", "`x.y`.`z`"), ("$1", "`crm`.`$1`"), ("Kunden_ä", "`crm`.`Kunden_ä`"), ("連絡先", "`crm`.`連絡先`")],
)  # fmt: skip
def test_a_safe_identifier_is_the_name_as_the_server_reads_it_in_quotes(name: str, safe: str):
    assert safe_mysql_identifier(name, database="crm") == safe


def test_a_table_without_a_database_needs_one_in_the_connection_string():
    with pytest.raises(ConfigurationError, match=r"expected database\.table"):
        safe_mysql_identifier("contacts")


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=15))
def test_any_name_in_quotes_is_that_name_before_any_other(name: str):
    assert DIALECT.readings(DIALECT.quoted(["s", name]))[0] == ("s", name)


_PIECES = st.lists(
    st.sampled_from([*"`.aZ9_$ '\"\\;-#/*(),\n\u00e4\u0308", "``", "`.`", "--", "/*", "*/", "JOIN", "SELECT", "crm"]), max_size=12
)


@settings(deadline=None)  # the first example starts the server
@given(st.one_of(_PIECES.map("".join), st.text(max_size=20)))
def test_every_name_that_is_accepted_is_one_table_to_the_server(name: str):
    try:
        safe = safe_mysql_identifier(name, database="crm")
    except ConfigurationError:
        return
    with _administrator().cursor() as cursor, pytest.raises(pymysql.err.Error) as refused:
        cursor.execute(f"SELECT 1 FROM {safe} WHERE 1 = 0")
    # 1146: there is no such table; 1103 and 1102: none can have that name (it ends in a blank); 3854, 1300: not of the basic plane
    assert refused.value.args[0] in {1146, 1102, 1103, 1300, 3854}
    if refused.value.args[0] == 1146:
        [(schema, table)] = DIALECT.readings(safe)[:1]
        assert f"'{schema}.{table}'" in refused.value.args[1]


_OPEN: list[pymysql.Connection] = []


def _administrator() -> pymysql.Connection:
    """One session for all examples."""
    if not _OPEN:
        _OPEN.append(server().connect())
    return _OPEN[0]


@pytest.fixture(autouse=True, scope="module")
def _closed() -> Iterator[None]:
    yield
    while _OPEN:
        _OPEN.pop().close()


def test_an_attack_as_a_table_name_is_refused(contacts: Customer):
    for name in HOSTILE_NAMES:
        with pytest.raises((ConfigurationError, SourceRejected)):
            contacts.rows(name)


def test_an_attack_as_a_column_name_is_refused(contacts: Customer):
    for name in HOSTILE_NAMES:
        with pytest.raises(ConfigurationError):
            load(contacts.table(columns=("id",)), name, "int", "1")


def test_an_attack_as_a_cursor_value_is_only_a_value(source: Customer):
    source.run("CREATE TABLE contacts (id varchar(20))", "INSERT INTO contacts VALUES ('!'), ('~~'), ('\U0010ffff')")
    for lower in ("contacts'); DROP TABLE canary; --", "' OR '1'='1", "%s %(x)s {}", "\\", "\\'", "$1", "\u202e", ""):
        above = {value for value in ("!", "~~", "\U0010ffff") if value.encode() >= lower.encode()}
        assert load(source.table(), "id", "text", lower).ids == above


@pytest.mark.parametrize(
    "stored", ["order", "Müller", "a`b", "x y", "x.y", "per%sent", "{0}", "x`; DROP TABLE canary; -- a", "é" * 64, "連絡先"]
)
def test_an_odd_name_that_exists_works(source: Customer, stored: str):
    quoted = "`" + stored.replace("`", "``") + "`"
    source.run(f"CREATE TABLE {quoted} ({quoted} varchar(9))", f"INSERT INTO {quoted} VALUES ('1'), ('2')")
    assert source.rows(quoted) == [{stored: "1"}, {stored: "2"}]
    assert [r[stored] for r in load(source.table(quoted), stored, "text", "2").records] == ["2"]


def test_the_catalogs_blindness_to_accents_finds_no_other_table(source: Customer):
    source.run("CREATE TABLE muller (id int)", "INSERT INTO muller VALUES (1)", "CREATE TABLE `müller` (id int)")
    assert source.rows("muller") == [{"id": "1"}]
    assert source.rows("müller") == []
    with pytest.raises(SourceRejected, match="close to it"):
        source.rows("Muller")


def test_a_table_of_another_database_is_read_and_an_unknown_one_answered_with_close_names(contacts: Customer):
    assert len(contacts.rows("crm.contacts")) == 5
    with pytest.raises(SourceRejected, match=r"`crm`\.`contacts`"):
        contacts.rows("contact")


# connection strings


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("mysql://u:p@db.example.org/d?local_infile=1", "local-infile"),
        ("mysql://u:p@db.example.org/d?allow_local_infile=1", "local-infile"),
        ("mysql://u:p@db.example.org/d?read_default_file=/etc/passwd", "read-default-file"),
        ("mysql://u:p@db.example.org/d?read_default_group=client", "read-default-group"),
        ("mysql://u:p@db.example.org/d?init_command=SELECT%201", "init-command"),
        ("mysql://u:p@db.example.org/d?unix_socket=/tmp/m.sock", "unix-socket"),
        ("mysql://u:p@db.example.org/d?socket=/tmp/m.sock", "socket"),
        ("mysql://u:p@db.example.org/d?client_flag=128", "client-flag"),
        ("mysql://u:p@db.example.org/d?plugin_dir=/tmp", "plugin-dir"),
        ("mysql://u:p@db.example.org/d?auth_plugin_map=x", "auth-plugin-map"),
        ("mysql://u:p@db.example.org/d?server_public_key=x", "server-public-key"),
        ("mysql://u:p@db.example.org/d?ssl_ca=/etc/passwd", "ca_certificate"),
        ("mysql://u:p@db.example.org/d?ssl_key=/etc/shadow", "ssl-key"),
        ("mysql://u:p@db.example.org/d?ssl_cert=/etc/shadow", "ssl-cert"),
        ("mysql://u:p@db.example.org/d?ssl_disabled=true", "ssl-disabled"),
        ("mysql://u:p@db.example.org/d?ssl_verify_identity=false", "ssl-verify-identity"),
        ("mysql://u:p@db.example.org/d?host=127.0.0.1", "host"),
        ("mysql://u:p@db.example.org/d?charset=latin1", "utf8mb4"),
        ("mysql://u:p@db.example.org/d?ssl-mode=off", "ssl-mode"),
        ("mysql://u:p@db.example.org/d?ssl-mode=PREFERRED", "ssl-mode"),
        ("mysql://u:p@%2Ftmp%2Fm.sock/d", "plain host name"),
        ("mysql:///d", "host"),
        ("mysql://db.example.org/d", "user"),
        ("mysql://u%00x@db.example.org/d", "control character"),
        ("mysql://u@db.example.org/a/b", "cannot be read"),
        ("mysql://u:p#q@db.example.org/d", "cannot be read"),
        ("mysql://u@db.example.org:0x1/d", "cannot be read"),
        ("mysql://u@db.example.org:99999/d", "cannot be read"),
        ("mysql://u@10.1.2.3/d", "IDENTITY_ALLOW_PRIVATE_HOSTS"),
        ("mysql://u@localhost/d", "IDENTITY_ALLOW_PRIVATE_HOSTS"),
        ("mysql://u@2130706433/d", "plain host name"),
        ("postgresql://u@db.example.org/d", "cannot be read"),
        ("", "cannot be read"),
    ],
)  # fmt: skip
def test_a_connection_string_that_does_more_is_refused_by_the_fields_name(text: str, field: str):
    with pytest.raises(ConfigurationError, match=field):
        address.parse(text)


@pytest.mark.parametrize(
    "text",
    [f"mysql://u:{SECRET}@db.example.org/d?local_infile={SECRET}", f"mysql://u:p@db.example.org/d?{SECRET}={SECRET}", f"mysql://u:{SECRET}@",
     f"{SECRET}", f"mysql://u:a#{SECRET}@db.example.org/d", f"mysql://u:{SECRET}@db.example.org:99999/d", f"mysql://u:a/{SECRET}@db.example.org/d",
     f"mysql://u:p@db.example.org/d?ssl-mode={SECRET}"],
)  # fmt: skip
def test_no_value_of_a_refused_connection_string_is_shown(text: str):
    with pytest.raises(ConfigurationError) as refused:
        address.parse(text)
    assert SECRET not in str(refused.value)


def test_an_address_is_shown_without_its_password_and_every_field_can_be_escaped():
    parsed = address.parse(f"mariadb://u%40x:{SECRET}%2F%23%3A@db.example.org/d%20b?ssl_mode=required&connect_timeout=9999")
    assert SECRET not in repr(parsed) + str(parsed)
    assert (parsed.user, parsed.password, parsed.database, parsed.ssl_mode) == ("u@x", f"{SECRET}/#:", "d b", "REQUIRED")
    assert (parsed.connect_timeout, str(parsed)) == (60, "mysql://db.example.org:3306/d b")


@pytest.mark.parametrize("mode", address.MODES)
def test_the_certificate_of_a_public_host_is_always_verified_by_name(mode: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("IDENTITY_ALLOW_PRIVATE_HOSTS", raising=False)
    parsed = address.parse(f"mysql://u@db.example.org/d?ssl-mode={mode}")
    if mode == "DISABLED":
        with pytest.raises(ConfigurationError, match="unencrypted"):
            parsed.tls("93.184.216.34")
        return
    context = parsed.tls("93.184.216.34")
    assert context is not None
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


def test_a_certificate_authority_is_text_and_no_path():
    with pytest.raises(ConfigurationError, match="ca_certificate"):
        address.parse("mysql://u@db.example.org/d", "/etc/passwd")


# whom we talk to


def _asked(url: str, ca: str) -> None:
    with MysqlEngine(StoredToken(lambda: url), ca).open() as session:
        session.server()


def test_a_server_is_asked_over_tls_unless_a_listed_host_may_go_without(contacts: Customer):
    assert "over TLS" in next(iter(contacts.table().check())).message
    assert "without TLS" in next(iter(contacts.table(url=contacts.url(query="?ssl-mode=DISABLED")).check())).message


def test_a_certificate_that_nobody_known_signed_or_of_another_name_is_refused(contacts: Customer, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError, match="put its authority into ca_certificate"):
        _asked(contacts.url(), trustme.CA().cert_pem.bytes().decode())
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "localhost,127.0.0.1")
    elsewhere = contacts.url().replace("127.0.0.1", "localhost")
    with pytest.raises(ConfigurationError, match="another name"):
        _asked(elsewhere, contacts.server.ca)
    for mode in ("VERIFY_CA", "REQUIRED"):
        _asked(f"{elsewhere}?ssl-mode={mode}", contacts.server.ca)


_DONE = b"\0\0\0\2\0\0\0"


class Rogue(threading.Thread):
    """A server that greets as MySQL, lets anybody in by ``method``, and answers each statement with ``answer``.

    ``answers`` are the packets that answer each statement but those that set something.
    """

    def __init__(self, *answers: bytes, answer: bytes = b"", method: bytes = b"mysql_native_password", greeting: bytes | None = None):
        super().__init__(daemon=True)
        self.answers, self.answer, self.method, self.received = answers, answer, method, b""
        capabilities = 0x0FFFFFFF & ~0x800  # no TLS
        self.greeting = greeting or (
            b"\x0a8.4.0\0" + struct.pack("<I", 1) + b"12345678\0"
            + struct.pack("<HBHHB", capabilities & 0xFFFF, 45, 2, capabilities >> 16, 21)
            + b"\0" * 10 + b"123456789012\0mysql_native_password\0"
        )  # fmt: skip
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
        """Greet, let in, answer."""
        connection.settimeout(3)
        self.send(connection, 0, self.greeting)
        self.received += connection.recv(4096)
        if self.method != b"mysql_native_password":
            self.send(connection, 2, b"\xfe" + self.method + b"\0")
            self.received += connection.recv(4096)
        self.send(connection, 2, _DONE)
        while asked := connection.recv(4096):
            self.received += asked
            if b"SET " in asked and self.answers:
                self.send(connection, 1, _DONE)
            else:
                for number, answer in enumerate(self.answers or (_DONE if b"SET NAMES" in asked else self.answer,), 1):
                    self.send(connection, number, answer)

    def send(self, connection: socket.socket, number: int, body: bytes):
        """One packet."""
        connection.sendall(struct.pack("<I", len(body))[:3] + bytes([number]) + body)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_: object):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.join(5)

    def asked(self, query: str = "?ssl-mode=DISABLED") -> None:
        """Ask it something with a password."""
        _asked(f"mysql://u:{SECRET}@127.0.0.1:{self.port}/d{query}", "")


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")


@pytest.mark.usefixtures("listed")
def test_a_server_that_offers_no_tls_is_sent_nothing():
    with Rogue() as rogue, pytest.raises(ConfigurationError, match="offers no TLS"):
        rogue.asked("")
    assert rogue.received == b""


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("method", [b"mysql_clear_password", b"dialog", b"mysql_old_password"])
def test_a_server_that_wants_the_password_itself_does_not_get_it_unencrypted(method: bytes):
    with Rogue(method=method) as rogue, pytest.raises(ConfigurationError, match="by a method that is not used here"):
        rogue.asked()
    assert SECRET.encode() not in rogue.received


@pytest.mark.usefixtures("listed")
def test_a_server_that_asks_for_a_file_of_this_machine_gets_none():
    with Rogue(answer=b"\xfb/etc/hostname") as rogue, pytest.raises(ContractBroken, match="not MySQL's protocol"):
        rogue.asked()
    assert Path("/etc/hostname").read_bytes().strip() not in rogue.received


_COLUMN = b"".join(bytes([len(each)]) + each for each in (b"def", b"d", b"t", b"t", b"c", b"c")) + b"\x0c\x2d\0\1\0\0\0\xfd\0\0\0\0\0"
_END = b"\xfe\0\0\2\0"


def _rows(*rows: bytes) -> list[list[bytes | None]]:
    """What is read of two columns from a server that sends these rows."""
    with Rogue(b"\2", _COLUMN, _COLUMN, _END, b"\1a\1b", *rows, _END) as rogue:
        engine = MysqlEngine(StoredToken(lambda: f"mysql://u:{SECRET}@127.0.0.1:{rogue.port}/d?ssl-mode=DISABLED"), None)
        with engine.open() as session:
            [(values, _)] = session.connection.frames("SELECT", 2, 10, 1000)
            return [column.to_pylist()[1:] for column in values]


@pytest.mark.usefixtures("listed")
def test_a_length_is_read_in_all_of_its_forms():
    assert _rows(b"\xfb\0", b"\xfc\1\0x\xfb", b"\xfd\1\0\0x\xfe\1\0\0\0\0\0\0\0y") == [[None, b"x", b"x"], [b"", None, b"y"]]


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(
    "row",
    [b"", b"\1a", b"\1a\1b\1c", b"\1a\2b", b"\1a\xff", b"\1a\xfc\1", b"\1a\xfd\xff\xff\xffb", b"\1a\xfe\xff\xff\xff\xff\xff\xff\xff\xff"],
)  # fmt: skip
def test_a_row_that_is_none_is_not_guessed_at(row: bytes):
    with pytest.raises(ContractBroken, match="not MySQL's protocol"):
        _rows(row, b"\1a\1b")
    with pytest.raises(ContractBroken, match="not MySQL's protocol"):
        _rows(b"\1a\1b", row)


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request", b"\x0a", b"\xff\x10\x04#08004Too many connections"])
def test_something_else_at_the_port_is_retryable(greeting: bytes):
    with Rogue(greeting=greeting) as rogue, pytest.raises(SourceUnavailable):
        rogue.asked()


@pytest.mark.usefixtures("listed")
def test_a_server_that_never_greets_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SourceUnavailable):
        _asked(f"mysql://u:p@127.0.0.1:{silent.getsockname()[1]}/d?ssl-mode=DISABLED&connect-timeout=2", "")


def test_without_the_driver_a_message_says_which_extra_to_install(contacts: Customer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "identity_pipeline.readers.sql.mysql.session")
    for name in [name for name in sys.modules if name.startswith(("pymysql", "identity_pipeline.readers.sql.mysql.wire"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pymysql", None)
    [step] = contacts.table().check()
    assert (step.ok, "identity-pipeline[mysql]" in step.message) == (False, True)


# values

EXACT = {
    "decimal(60,20)": (
        "1234567890123456789012345678901234567890.12345678901234567890",
        "1234567890123456789012345678901234567890.12345678901234567890",
    ),
    "decimal(10,4)": ("1.1", "1.1000"),
    "bigint": ("-9223372036854775808", "-9223372036854775808"),
    "bigint unsigned": ("18446744073709551615", "18446744073709551615"),
    "int(5) zerofill": ("42", "00042"),
    "tinyint(1)": ("1", "1"),
    "double": ("0.1", "0.1"),
    "double(20,0)": ("1e15", "1000000000000000"),
    "float": ("0.1", "0.1"),
    "float unsigned": ("16777216", "16777216"),
    "bit(64)": ("b'1000000000000000000000000000000000000000000000000000000000000001'", "9223372036854775809"),
    "bit(1)": ("1", "1"),
    "timestamp": ("'2026-03-29 01:30:00'", "2026-03-29T01:30:00Z"),
    "timestamp(6)": ("'2026-03-29 01:30:00.000001'", "2026-03-29T01:30:00.000001Z"),
    "datetime": ("'2026-03-29 02:30:00'", "2026-03-29T02:30:00"),
    "datetime(3)": ("'2026-03-29 02:30:00.120'", "2026-03-29T02:30:00.120"),
    "datetime(6)": ("'0000-00-00 00:00:00'", "0000-00-00T00:00:00"),
    "datetime(1)": ("'9999-12-31 23:59:59.9'", "9999-12-31T23:59:59.9"),
    "date": ("'0000-00-00'", "0000-00-00"),
    "time": ("'-838:59:59'", "-838:59:59"),
    "time(6)": ("'23:59:59.5'", "23:59:59.500000"),
    "year": ("2026", "2026"),
    "enum('a','b c')": ("'b c'", "b c"),
    "set('x','y','z')": ("'z,x'", "x,z"),
    "json": ("""'{"b": [1.10, null], "a": "é"}'""", '{"b": [1.10, null], "a": "é"}'),
    "varbinary(200)": ("unhex(repeat('ff00', 60))", "/wD/AP8A" * 20),
    "binary(4)": ("'ab'", "YWIAAA=="),
    "blob": ("''", ""),
    "point": ("NULL", None),
    "uuid": ("'6f9619ff-8b86-d011-b42d-00cf4fc964ff'", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
    "inet6": ("'::ffff:10.0.0.1'", "::ffff:10.0.0.1"),
    "char(5)": ("'ab'", "ab"),
    "varchar(20)": ("'007'", "007"),
    "varchar(21)": (r"'\\N'", "\\N"),
    "varchar(22)": (r"'a\r\nb\n\"c\",\t\\'", 'a\r\nb\n"c",\t\\'),
    "varchar(23)": ("'\ufeffbom'", "\ufeffbom"),
    "varchar(24)": ("' NULL '", " NULL "),
    "varchar(25)": ("'\U0001f600e\u0301'", "\U0001f600e\u0301"),
    "varchar(26)": ("''", ""),
    "varchar(27) CHARACTER SET latin1": ("'Müller €'", "Müller €"),
    "varchar(28) CHARACTER SET sjis": ("'連絡先'", "連絡先"),
    "varchar(29) CHARACTER SET utf16": ("'\U0001f600'", "\U0001f600"),
    "tinytext": ("'x'", "x"),
}


def test_a_value_comes_through_exactly(source: Customer):
    columns = {declared: f"c{number}" for number, declared in enumerate(EXACT)}
    source.run(
        f"CREATE TABLE contacts ({', '.join(f'{name} {declared} NULL' for declared, name in columns.items())})",
        f"INSERT INTO contacts VALUES ({', '.join(value for value, _ in EXACT.values())}), ({', '.join('NULL' for _ in EXACT)})",
    )
    row, nulls = source.rows()
    assert {declared: row[name] for declared, name in columns.items()} == {declared: text for declared, (_, text) in EXACT.items()}
    assert nulls == dict.fromkeys(columns.values())


def test_the_users_and_the_servers_own_settings_do_not_change_a_value(source: Customer):
    source.run(
        "CREATE TABLE contacts (at timestamp, c char(3), id int AUTO_INCREMENT PRIMARY KEY)",
        "INSERT INTO contacts VALUES ('2026-01-01 12:00', 'a', 1)",
    )
    for name, hostile in {"sql_mode": "'PAD_CHAR_TO_FULL_LENGTH,ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
                          "sql_select_limit": "0", "sql_auto_is_null": "1",
                          "tx_isolation": "'READ-UNCOMMITTED'", "time_zone": "'+09:00'"}.items():  # fmt: skip
        before = source.run(f"SELECT @@global.{name}")[0][0]
        source.run(f"SET GLOBAL {name} = {hostile}")
        try:
            assert source.rows() == [{"at": "2026-01-01T12:00:00Z", "c": "a", "id": "1"}], name
        finally:
            source.run(f"SET GLOBAL {name} = {before!r}")


# cursor


def test_an_incremental_read_asks_the_server_for_the_window_only(contacts: Customer):
    got = load(contacts.table(), "updated_at", "timestamp", "2026-04-01T04:00:00Z")
    assert (got.ids, got.filtered, got.mark) == ({"4", "5"}, 0, "2026-04-01T05:00:00Z")


def test_fifty_thousand_ties_at_the_mark_are_all_read_again(source: Customer):
    source.run(
        "CREATE TABLE contacts (id int PRIMARY KEY, at datetime)", "INSERT INTO contacts SELECT seq, '2026-04-01' FROM seq_1_to_50000"
    )
    first = load(source.table(), "at", "timestamp")
    source.run("INSERT INTO contacts VALUES (50001, '2026-04-01')")
    second = load(source.table(), "at", "timestamp", first.mark)
    assert (len(first.ids), len(second.ids), second.filtered) == (50_000, 50_001, 0)


@pytest.mark.parametrize(
    ("declared", "cursor_type", "lower", "unplaced"),
    [
        ("timestamp NULL", "timestamp", "2026-04-01T00:00:00Z", ("NULL", "'0000-00-00'")),
        ("timestamp NULL", "timestamp", "0001-01-01T00:00:00Z", ("NULL", "'0000-00-00'", "'2026-03-02'")),
        ("datetime", "timestamp", "2026-04-01T00:00:00Z", ("NULL", "'0000-00-00'")),
        ("datetime NOT NULL", "timestamp", "2026-04-01T00:00:00Z", ("'0000-00-00'",)),
        ("date", "timestamp", "2026-04-01T00:00:00Z", ("NULL", "'0000-00-00'")),
        ("bigint unsigned", "int", "100", ("NULL",)),
        ("bigint", "int", "-99999999999999999999999", ("NULL", "5")),
        ("decimal(38,0)", "int", "100", ("NULL",)),
        ("varchar(9)", "text", "m", ("NULL",)),
        ("varchar(9) CHARACTER SET latin1", "text", "m", ("NULL",)),
    ],
)
def test_rows_without_a_place_in_the_order_are_read_by_every_load(
    source: Customer, declared: str, cursor_type, lower: str, unplaced: tuple
):
    early, late = {"timestamp": ("2026-03-01", "2026-05-01"), "int": ("1", "200"), "text": ("a", "z")}[cursor_type]
    source.run(
        f"CREATE TABLE contacts (id varchar(9), c {declared})", f"INSERT INTO contacts VALUES ('early', '{early}'), ('late', '{late}')"
    )
    for number, value in enumerate(unplaced):
        source.run(f"INSERT INTO contacts VALUES ('{number}', {value})")
    got = load(source.table(), "c", cursor_type, lower)
    everything = lower.startswith(("0001", "-9"))
    assert (got.ids - {"early"} if everything else got.ids, got.filtered) == ({"late", *map(str, range(len(unplaced)))}, 0)


@pytest.mark.parametrize("lower", ["1969-01-01T00:00:00Z", "2999-01-01T00:00:00Z"])
def test_a_bound_that_a_timestamp_cannot_hold_is_a_bound_all_the_same(source: Customer, lower: str):
    source.run("CREATE TABLE contacts (id int, at timestamp NULL, KEY (at))", "INSERT INTO contacts VALUES (1, '2026-01-01'), (2, NULL)")
    assert load(source.table(), "at", "timestamp", lower).ids == ({"1", "2"} if lower < "2" else {"2"})


@pytest.mark.parametrize("collation", ["utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb4_bin", "utf8mb4_nopad_bin", "latin1_german1_ci"])
def test_text_is_compared_by_its_bytes_whatever_its_collation(source: Customer, collation: str):
    source.run(f"CREATE TABLE contacts (id varchar(9) CHARACTER SET {collation.partition('_')[0]} COLLATE {collation})")
    values = ["a", "A", "ä", "a ", "a\t", "B", "b", "10", "9", ""]
    with source.admin.cursor() as cursor:
        cursor.executemany("INSERT INTO contacts VALUES (%s)", [(value,) for value in values])
    for lower in ("a", "B", "10", ""):
        assert load(source.table(), "id", "text", lower).ids == {value for value in values if value.encode() >= lower.encode()}
    assert load(source.table(), "id", "text").mark == "ä"


@pytest.mark.parametrize(
    ("declared", "cursor_type", "wrong", "right", "maximum"),
    [("bigint unsigned", "int", "18446744073709551615", "4", "4"), ("decimal(38,0)", "int", "9" * 38, "4", "4"),
     ("varchar(9)", "text", "\uffff", "é", "é"), ("varchar(9) COLLATE utf8mb4_general_ci", "text", "zz", "Z", "Z")],
)  # fmt: skip
def test_a_mark_beyond_all_rows_goes_back_to_the_largest_there_is(source: Customer, declared: str, cursor_type, wrong, right, maximum):
    source.run(f"CREATE TABLE contacts (id int, c {declared})", f"INSERT INTO contacts VALUES (1, '3'), (2, '{right}')")
    got = load(source.table(), "c", cursor_type, wrong)
    assert (got.ids, got.context.source_maximum) == ({"1", "2"}, maximum)


def test_wall_clock_is_read_in_the_sources_zone(source: Customer):
    source.run(
        "CREATE TABLE contacts (id int, at datetime)", "INSERT INTO contacts VALUES (1, '2026-07-01 11:59'), (2, '2026-07-01 12:00')"
    )
    table = source.table(timezone="Europe/Berlin")
    assert load(table, "at", "timestamp").mark == "2026-07-01T10:00:00Z"
    assert load(table, "at", "timestamp", "2026-07-01T10:00:00Z").ids == {"2"}


def test_a_row_of_the_future_is_loaded_and_the_mark_stays_at_the_servers_time(contacts: Customer):
    contacts.run("INSERT INTO contacts VALUES (6, 'later', '2999-01-01', NULL)")
    got = load(contacts.table(), "updated_at", "timestamp")
    assert "6" in got.ids
    assert got.mark == "2026-04-01T05:00:00Z"


def test_an_index_on_the_cursor_serves_a_load_that_asks_for_rows_without_a_value_too(contacts: Customer):
    contacts.run(
        "INSERT INTO contacts SELECT seq, 'x', utc_timestamp(), NULL FROM seq_10_to_20000",
        "CREATE INDEX at ON contacts (updated_at)",
        "ANALYZE TABLE contacts",
    )
    with read_only(address.parse(contacts.url(), contacts.server.ca)) as connection:
        table = catalog.find(connection, "crm", "contacts")
        assert table is not None
        followed = table.column("updated_at", "").follow("timestamp", "UTC")
        statement = stream.select(table, followed, Window(lower="2998-01-01T00:00:00Z"))
        [plan] = connection.ask(f"EXPLAIN {statement}")
    assert (plan["key"], plan["type"]) == ("at", "range")


@pytest.mark.parametrize(("declared", "cursor_type"), [("datetime", "int"), ("int", "timestamp"), ("json", "int"), ("decimal(9,2)", "int"),
                                                       ("blob", "text"),
                                                       ("enum('a')", "text"), ("time", "timestamp"), ("float", "int")])  # fmt: skip
def test_a_cursor_type_that_the_column_has_not_is_refused(source: Customer, declared: str, cursor_type):
    source.run(f"CREATE TABLE contacts (id {declared})")
    with pytest.raises(ConfigurationError, match="'id'"):
        load(source.table(), "id", cursor_type)


# late commits


@pytest.fixture
def stamped(source: Customer) -> Customer:
    source.run(
        "CREATE TABLE contacts (id varchar(9), n int AUTO_INCREMENT PRIMARY KEY, at datetime(6) DEFAULT utc_timestamp(6),"
        " ts timestamp(6) DEFAULT now(6))",
        "INSERT INTO contacts (id, at, ts) VALUES ('old', '2026-01-01', '2026-01-01')",
    )
    return source


@pytest.mark.parametrize(("column", "user"), [("at", "administrator"), ("ts", "reader")])
def test_a_row_that_is_committed_late_is_found_without_any_overlap(stamped: Customer, column: str, user: str):
    with contextlib.ExitStack() as stack:
        url = (
            stamped.url()
            if user == "administrator"
            else stack.enter_context(stamped.user("reader", "r", "SELECT ON crm.*", "PROCESS ON *.*"))
        )
        late = stack.enter_context(stamped.transaction())
        late.execute("INSERT INTO contacts (id) VALUES ('late')")
        time.sleep(1.1)
        stamped.run("INSERT INTO contacts (id) VALUES ('punctual')")
        time.sleep(1.1)
        first = load(stamped.table(url=url), column, "timestamp")
        late.execute("COMMIT")
        second = load(stamped.table(url=url), column, "timestamp", first.mark)
    assert (first.ids, "late" in second.ids) == ({"old", "punctual"}, True)
    assert first.context.warnings + second.context.warnings == []


def test_a_statement_that_runs_when_a_load_looks_is_waited_for(stamped: Customer):
    def write() -> None:
        with stamped.transaction() as late:
            late.execute("INSERT INTO contacts (id) SELECT concat('late', sleep(2)) FROM contacts")
            late.execute("COMMIT")

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.5)
    stamped.run("INSERT INTO contacts (id) VALUES ('punctual')")
    time.sleep(1.1)
    first = load(stamped.table(), "at", "timestamp")
    writer.join()
    assert "late0" in load(stamped.table(), "at", "timestamp", first.mark).ids - first.ids


def test_a_reader_that_stays_open_does_not_hold_the_mark_back(stamped: Customer):
    with stamped.transaction() as reader:
        reader.execute("SELECT * FROM contacts")
        time.sleep(1.1)
        context = load(stamped.table(), "at", "timestamp").context
    assert context.source_clock is not None
    assert context.source_time == context.source_clock - timedelta(seconds=1)


def test_the_clock_is_the_servers_own_in_whatever_zone_it_is(stamped: Customer):
    context = load(stamped.table(), "at", "timestamp").context
    assert context.source_clock is not None
    assert abs(context.source_clock - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(("grants", "column", "kind", "remedy"), [
    (("SELECT ON crm.*",), "at", "timestamp", "GRANT PROCESS"),
    (("SELECT ON crm.*", "PROCESS ON *.*"), "n", "int", "1 transactions are writing, the oldest for"),
])  # fmt: skip
def test_a_load_that_can_miss_late_commits_says_why_and_the_overlap_closes_it(stamped: Customer, grants, column, kind, remedy: str):
    with stamped.user("reader", "r", *grants) as url, stamped.transaction() as late:
        late.execute("INSERT INTO contacts (id) VALUES ('late')")
        stamped.run("INSERT INTO contacts (id) VALUES ('punctual')")
        time.sleep(1.1)
        first = load(stamped.table(url=url), column, kind)
        late.execute("COMMIT")
        bare = load(stamped.table(url=url), column, kind, first.mark)
        overlapping = load(stamped.table(url=url), column, kind, "0" if kind == "int" else "2026-02-01T00:00:00Z")
    [warning] = first.context.warnings
    assert remedy in warning
    assert "overlap as long as the longest transaction" in warning
    assert ("late" in bare.ids, "late" in overlapping.ids) == (False, True)


def test_a_replica_or_a_prepared_transaction_is_told(stamped: Customer):
    with contextlib.closing(stamped.server.connect(database="crm")) as other, other.cursor() as cursor:
        for statement in ("XA START 'one'", "INSERT INTO contacts (id) VALUES ('late')", "XA END 'one'", "XA PREPARE 'one'"):
            cursor.execute(statement)
    try:
        [prepared] = load(stamped.table(), "at", "timestamp").context.warnings
        stamped.run("XA ROLLBACK 'one'", "SET GLOBAL read_only = 1")
        [remote] = load(stamped.table(), "at", "timestamp").context.warnings
    finally:
        stamped.run("SET GLOBAL read_only = 0")
    assert "1 transactions are prepared" in prepared
    assert "written on another" in remote


# amounts


def test_a_stream_of_200_mb_does_not_grow_the_process_by_it(source: Customer):
    source.run("CREATE VIEW contacts AS SELECT seq AS id, repeat('x', 1000) AS note FROM seq_1_to_200000")
    process = psutil.Process()
    rows, before, most = 0, process.memory_info().rss, 0
    for batch in source.table().read(Window()):
        rows += len(batch)
        assert batch.nbytes <= 64 * 2**20
        most = max(most, process.memory_info().rss - before)
    assert rows == 200_000
    assert most < 160 * 2**20


@pytest.mark.parametrize("size", [250, 251, 65_535, 65_536, 2**24 - 10, 2**24 - 6, 2**24 - 5, 2**24 - 1, 2**24, 40_000_000])
def test_a_value_of_any_size_is_read_whole(source: Customer, size: int):
    source.run(
        "SET SESSION max_statement_time = 0", f"CREATE VIEW contacts AS SELECT seq AS id, repeat('x', {size}) AS note FROM seq_1_to_3"
    )
    assert [(row["id"], len(row["note"])) for row in source.rows()] == [("1", size), ("2", size), ("3", size)]


def test_a_limit_reaches_the_server_and_an_empty_table_yields_nothing(contacts: Customer):
    assert sum(len(b) for b in contacts.table().read(Window(Cursor("id", "int"), "2", limit=3))) == 3
    contacts.run("DELETE FROM contacts")
    assert contacts.rows() == []


def test_a_reader_that_has_enough_stops_the_server(source: Customer):
    source.run("CREATE VIEW contacts AS SELECT seq AS id FROM seq_1_to_1000000000")
    reading = source.table().read(Window())
    next(reading)
    started = time.monotonic()
    reading.close()
    assert time.monotonic() - started < 30
    deadline = time.monotonic() + 30
    while source.run("SELECT count(*) FROM information_schema.processlist WHERE info LIKE '%contacts%' AND id <> connection_id()") != [
        (0,)
    ]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# failures


def test_a_wrong_password_is_a_credential_error_without_the_password(contacts: Customer):
    for query in ("", "?ssl-mode=DISABLED"):
        with pytest.raises(CredentialError) as refused:
            contacts.rows(url=contacts.url(password=SECRET, query=query))
        assert SECRET not in str(refused.value)


def test_a_password_of_any_characters_signs_in(contacts: Customer):
    with contacts.user("odd", "é 連#/?:@%20", "SELECT ON crm.contacts") as url:
        assert len(contacts.rows(url=url)) == 5


def test_a_user_who_has_to_come_over_tls_is_told_so(contacts: Customer):
    with contacts.user("strict", "s", "SELECT ON crm.contacts"):
        contacts.run("ALTER USER strict REQUIRE SSL")
        with pytest.raises(CredentialError, match="leave ssl-mode out"):
            contacts.rows(url=contacts.url("strict", "s", query="?ssl-mode=DISABLED"))
        assert len(contacts.rows(url=contacts.url("strict", "s"))) == 5
        contacts.run("ALTER USER strict ACCOUNT LOCK")
        with pytest.raises(CredentialError, match="locked"):
            contacts.rows(url=contacts.url("strict", "s"))


def test_a_table_without_grant_is_permission_denied_and_says_which_grant(contacts: Customer):
    with contacts.user("poor", "p", "USAGE ON *.*") as url, pytest.raises(PermissionDenied, match=r"GRANT SELECT ON `crm`\.`contacts`"):
        contacts.rows(url=url)


def test_columns_without_grant_are_not_there_and_the_others_can_be_read(contacts: Customer):
    with contacts.user("poor", "p", "SELECT (id, email), INSERT (note) ON crm.contacts") as url:
        with pytest.raises(PermissionDenied, match="'note'"):
            contacts.rows(url=url)
        with pytest.raises(ConfigurationError, match="updated_at"):
            load(contacts.table(url=url, columns=("id",)), "updated_at", "timestamp")
        assert len(contacts.rows(url=url, columns=("id", "email"))) == 5


def test_nobody_at_the_port_is_retryable(contacts: Customer):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        with pytest.raises(SourceUnavailable):
            contacts.rows(url=contacts.url(port=one.getsockname()[1]))


@pytest.mark.parametrize("kill", ["KILL", "KILL QUERY"])
def test_a_read_that_the_server_ends_in_the_middle_is_retryable(source: Customer, kill: str):
    source.run("CREATE VIEW contacts AS SELECT seq AS id, repeat('x', 500) AS note FROM seq_1_to_100000000")
    reading = source.table().read(Window())
    next(reading)
    [(number,)] = source.run("SELECT id FROM information_schema.processlist WHERE info LIKE '%contacts%' AND id <> connection_id()")
    source.run(f"{kill} {number}")
    with pytest.raises(SourceUnavailable):
        list(reading)


def test_a_locked_table_is_retryable(contacts: Customer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SETTINGS, "lock_wait_timeout", "1")
    with contacts.transaction() as other:
        other.execute("LOCK TABLES contacts WRITE")
        with pytest.raises(SourceUnavailable, match="1205"):
            contacts.rows()


def test_a_session_can_only_read(contacts: Customer):
    contacts.run(
        "CREATE FUNCTION kill_it() RETURNS int MODIFIES SQL DATA BEGIN DELETE FROM canary; RETURN 1; END",
        "CREATE VIEW harmful AS SELECT kill_it() AS id",
    )
    with pytest.raises(SourceRejected, match=r"1792|no columns"):  # MariaDB does not even look into it in such a session
        contacts.rows("harmful")
    for statement in ("DELETE FROM crm.canary", "CREATE TABLE crm.x (id int)", "DROP TABLE crm.canary"):
        with pytest.raises(PipelineError), read_only(address.parse(contacts.url(), contacts.server.ca)) as connection:
            connection.ask(statement)


def test_a_failing_view_is_reported_without_its_values(source: Customer):
    source.run(
        "CREATE TABLE t (note varchar(99))",
        "INSERT INTO t VALUES ('canary@example.org'), ('canary@example.com')",
        "CREATE VIEW contacts AS SELECT (SELECT note FROM t) AS id",
        "CREATE TABLE gone (note varchar(99))",
        "CREATE VIEW broken AS SELECT note FROM gone",
        "DROP TABLE gone",
    )
    for name in ("contacts", "broken"):
        with pytest.raises(SourceRejected) as refused:
            source.rows(name)
        assert "canary@" not in str(refused.value)


def test_a_column_that_goes_during_the_read_is_no_silence(contacts: Customer, monkeypatch: pytest.MonkeyPatch):
    look = commits.look

    def meanwhile(*args):
        contacts.run("ALTER TABLE contacts DROP COLUMN note")
        return look(*args)

    monkeypatch.setattr(commits, "look", meanwhile)
    with pytest.raises(SourceRejected, match="1054"):
        contacts.rows()


# connection test


def test_check_says_what_is_wrong_with_a_user(contacts: Customer):
    contacts.run("ANALYZE TABLE contacts")
    steps = list(contacts.table().check())
    assert [step.ok for step in steps] == [True] * 4
    assert "GRANT SELECT ON the table, GRANT PROCESS ON *.*" in steps[1].message
    assert "and may write it" in steps[2].message
    assert "5 rows of about 5, 4 columns, primary key id" in steps[3].message
    with contacts.user("reader", "r", "SELECT ON crm.contacts") as url:
        assert "GRANT PROCESS ON *.*" in list(contacts.table(url=url).check())[1].message
        contacts.run("GRANT PROCESS ON *.* TO reader@'%'")
        assert [step.message for step in list(contacts.table(url=url).check())[1:3]] == [
            "signed in as reader@%",
            "may read `crm`.`contacts`",
        ]


@pytest.mark.parametrize(
    ("url", "table", "outcome"),
    [
        ({"port": 1}, "contacts", [("reach", False)]),
        ({"password": "wrong"}, "contacts", [("reach", True), ("authenticate", False)]),
        ({}, "nothing", [("reach", True), ("authenticate", True), ("permission", False)]),
        ({}, "contacts; DROP TABLE canary", [("reach", False)]),
    ],
)
def test_check_stops_at_the_first_step_that_fails(contacts: Customer, url: dict, table: str, outcome: list):
    assert [(step.name, step.ok) for step in contacts.table(table, url=contacts.url(**url)).check()] == outcome
