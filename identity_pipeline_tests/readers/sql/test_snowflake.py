"""A table of a Snowflake account by the vendor's own driver: nothing lost, nothing changed, nothing executed, sign-in really checked."""

import socket
import sys
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from identity_pipeline.core.cursor import Cursor, subtract_overlap
from identity_pipeline.core.errors import ConfigurationError, CredentialError, PermissionDenied, SourceRejected, SourceUnavailable
from identity_pipeline.core.secret import StoredToken
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.cursor import FollowedColumn
from identity_pipeline.readers.sql.snowflake import SnowflakeEngine, safe_snowflake_identifier, session, stream
from identity_pipeline.readers.sql.snowflake.address import checked
from identity_pipeline.readers.sql.snowflake.names import DIALECT
from identity_pipeline_tests.snowflake_source import Customer, customer
from identity_pipeline_tests.sql_load import load

SECRET = "canary-of-a-secret"
HOSTILE_NAMES = (
    "contacts; DROP TABLE canary", 'contacts"; DROP TABLE canary; --', '"contacts""; DROP TABLE canary; --', "contacts WHERE 1=1",
    "contacts AT(OFFSET => -60)", "contacts SAMPLE (1)", "TABLE(generator(rowcount=>9))", "@~/file.csv", "@stage", "$1", "$$contacts$$",
    "identifier('contacts')", "LATERAL FLATTEN(x)", "(SELECT 1)", "contacts,canary", "contacts -- ", "contacts // ", "contacts/**/",
    "'contacts'",
    "contacts\x00", "contacts\u202e", "contacts\ud800", "contacts\n", "%s", "?", ":1", "{}", "*", "", ".", "crm.", ".contacts", "a.b.c.d",
    '""', '"',
    "c" * 256, "1a", "müller", "information_schema.tables", '"INFORMATION_SCHEMA"."TABLES"', "snowflake.account_usage.users",
)  # fmt: skip


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Customer]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    monkeypatch.setattr(session, "LOGIN_TIMEOUT", 3)
    with customer() as made:
        yield made


@pytest.fixture
def contacts(source: Customer) -> Customer:
    source.run(
        "CREATE TABLE contacts (id int, email text, updated_at timestamp_ntz)",
        "INSERT INTO contacts VALUES (1, '1@example.org', '2026-04-01 01:00'), (2, '2@example.org', '2026-04-01 02:00'),"
        " (3, '3@example.org', '2026-04-01 03:00')",
    )
    return source


# names


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_rejects_unsafe_table_name(name: str):
    with pytest.raises(ConfigurationError, match=r"^table: "):
        safe_snowflake_identifier(name, database="crm")


@pytest.mark.parametrize(
    ("name", "safe"),
    [("contacts", '"CRM"."PUBLIC"."CONTACTS"'), ('"contacts"', '"CRM"."PUBLIC"."contacts"'), ("sales.contacts", '"CRM"."SALES"."CONTACTS"'),
     ('Shop."a""b".c$1', '"SHOP"."a""b"."C$1"'), ("_x", '"CRM"."PUBLIC"."_X"')],
)  # fmt: skip
def test_a_safe_identifier_is_the_name_as_snowflake_reads_it_in_quotes(name: str, safe: str):
    assert safe_snowflake_identifier(name, database="crm") == safe


@pytest.mark.parametrize("database", ["a b", "a.b", '"', "a;b", "x'y"])
def test_a_database_is_one_name_too(database: str):
    with pytest.raises(ConfigurationError, match=r"^database: "):
        safe_snowflake_identifier("contacts", database=database)


def test_without_a_database_a_name_is_a_full_one():
    assert safe_snowflake_identifier('"crm".public.contacts') == '"crm"."PUBLIC"."CONTACTS"'
    with pytest.raises(ConfigurationError, match=r"expected database\.schema\.table"):
        safe_snowflake_identifier("public.contacts")


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=15))
def test_any_name_in_quotes_is_that_name_before_any_other(name: str):
    assert DIALECT.readings(DIALECT.quoted(["d", "s", name]))[0] == ("d", "s", name)


_PIECES = st.lists(st.sampled_from([*"\".aZ9_$ `'\\;-/@(:", '""', '"."', "--", "/*", "$$", "SELECT"]), max_size=12)


@given(st.one_of(_PIECES.map("".join), st.text(max_size=20)))
def test_every_name_that_is_accepted_is_three_parts_in_quotes(name: str):
    try:
        safe = safe_snowflake_identifier(name, database="crm")
    except ConfigurationError:
        return
    parts, inside = [""], False
    for character in safe:  # as any parser of SQL reads it: a quote opens, a quote closes, two in between are one
        inside ^= character == '"'
        if character == "." and not inside:
            parts.append("")
        else:
            parts[-1] += character
    assert not inside
    assert [part[0] + part[-1] for part in parts] == ['""'] * 3
    assert tuple(part[1:-1].replace('""', '"') for part in parts) == DIALECT.readings(safe)[0]


def test_an_attack_as_a_name_is_refused(contacts: Customer):
    for name in HOSTILE_NAMES:
        with pytest.raises((ConfigurationError, SourceRejected)):
            contacts.rows(name)
    for name in HOSTILE_NAMES[:12]:
        with pytest.raises(ConfigurationError):
            load(contacts.table(columns=("ID",)), name, "int", "1")


def test_an_attack_as_a_cursor_value_is_only_a_value(source: Customer):
    source.run("CREATE TABLE contacts (id text)", "INSERT INTO contacts VALUES ('!'), ('~~')")
    for lower in ("contacts'); DROP TABLE canary; --", "' OR '1'='1", "%s ? :1 {}", "\\"):
        above = {value for value in ("!", "~~") if value >= lower}
        assert {row["ID"] for row in load(source.table(), "ID", "text", lower).records} == above


def test_names_that_differ_by_case_are_two_tables(source: Customer):
    source.run("CREATE TABLE contacts (id int)", "INSERT INTO contacts VALUES (1)")
    assert source.rows("Contacts") == [{"ID": "1"}]
    with pytest.raises(SourceRejected, match=r'"CRM"\."PUBLIC"\."CONTACTS"'):
        source.rows('"contacts"')


# settings


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"account": "a/b"}, "account"), ({"account": "evil.com#"}, "account"), ({"account": ""}, "account"), ({"account": "a@b"}, "account"),
     ({"user": ""}, "user"), ({"user": "a\nb"}, "user"), ({"role": "a'b"}, "role"), ({"warehouse": 'a"b'}, "warehouse"),
     ({"base_url": "http://db.example.org"}, "base_url"), ({"base_url": "file:///etc/passwd"}, "base_url"),
     ({"base_url": "https://10.0.0.1"}, "base_url"),
     ({"base_url": "https://u:p@db.example.org"}, "base_url")],
)  # fmt: skip
def test_a_setting_that_does_more_is_refused_by_its_name(settings: dict, field: str):
    plain = {"account": "myorg-shop", "user": "u", "warehouse": "", "role": "", "database": "", "base_url": ""}
    assert checked(**plain).host == "myorg-shop.snowflakecomputing.com"
    with pytest.raises(ConfigurationError, match=rf"^{field}: "):
        checked(**plain | settings)


@pytest.mark.parametrize("name", ["SNOWFLAKE_HOME", "SNOWFLAKE_PASSWORD", "SNOWFLAKE_DEFAULT_CONNECTION_NAME", "SNOWFLAKE_CONNECTIONS"])
def test_the_drivers_environment_has_no_influence(contacts: Customer, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path):
    (tmp_path / "connections.toml").write_text('[default]\naccount = "rogue"\nhost = "203.0.113.1"\nuser = "nobody"\n')
    (tmp_path / "connections.toml").chmod(0o600)
    monkeypatch.setenv(name, str(tmp_path) if name == "SNOWFLAKE_HOME" else "default")
    assert len(contacts.rows()) == 3


def test_without_the_driver_a_message_says_which_extra_to_install(contacts: Customer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "identity_pipeline.readers.sql.snowflake.session")
    monkeypatch.setitem(sys.modules, "snowflake.connector", None)
    [step] = contacts.table().check()
    assert (step.ok, "identity-pipeline[snowflake]" in step.message) == (False, True)


# signing in


def _pair(passphrase: str | None = None) -> tuple[str, str]:
    """A private key, as it is kept, and its public one."""
    key = rsa.generate_private_key(65537, 2048)
    kept = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kept)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def test_a_key_pair_signs_in_and_another_one_does_not(contacts: Customer):
    private, public = _pair()
    contacts.account.let({"READER": {"public_key": public}})
    assert len(contacts.rows(user="READER", credential=private, authentication="key_pair")) == 3
    with pytest.raises(CredentialError, match="390144"):
        contacts.rows(user="READER", credential=_pair()[0], authentication="key_pair")


def test_an_encrypted_key_needs_its_passphrase(contacts: Customer):
    private, public = _pair("phrase")
    contacts.account.let({"READER": {"public_key": public}})
    chosen = {"user": "READER", "credential": private, "authentication": "key_pair"}
    assert len(contacts.rows(**chosen, passphrase=StoredToken(lambda: "phrase"))) == 3
    for passphrase in (None, StoredToken(lambda: SECRET)):
        with pytest.raises(ConfigurationError, match="passphrase") as refused:
            contacts.rows(**chosen, passphrase=passphrase)
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize("authentication", ["token", "oauth", "password"])
def test_a_token_or_password_signs_in_and_a_wrong_one_is_a_credential_error(contacts: Customer, authentication: str):
    contacts.account.let({"READER": {authentication: "right"}})
    chosen = {"user": "READER", "authentication": authentication}
    assert len(contacts.rows(**chosen, credential="right")) == 3
    with pytest.raises(CredentialError) as refused:
        contacts.rows(**chosen, credential=SECRET)
    assert SECRET not in str(refused.value)


def test_a_password_is_warned_of_and_a_key_is_not(contacts: Customer):
    private, public = _pair()
    contacts.account.let({"READER": {"public_key": public, "password": "p"}})
    words = [
        list(contacts.table(user="READER", credential=c, authentication=a).check())[1].message
        for c, a in ((private, "key_pair"), ("p", "password"))
    ]
    assert ["password alone" in word for word in words] == [False, True]
    assert all("cursor_overlap, an hour by default" in word for word in words)


def test_the_credential_is_shown_nowhere():
    assert SECRET not in repr(SnowflakeEngine("a", "u", StoredToken(lambda: SECRET), passphrase=StoredToken(lambda: SECRET)))


# values

EXACT = {
    "number(18,0)": ("123456789012345678", "123456789012345678"),
    "number(20,4)": ("1.1", "1.1000"),
    "float": ("0.1", "0.1"),
    "double": ("16777217", "16777217"),
    "boolean": ("true", "true"),
    "timestamp_ntz": ("'2026-03-29 02:30:00.120'::timestamp_ntz", "2026-03-29T02:30:00.12"),
    "timestamp_ntz(0)": ("'2026-03-29 02:30:00'::timestamp_ntz", "2026-03-29T02:30:00"),
    "timestamp_tz": ("'2026-03-29 02:30:00.000001 +02:00'::timestamp_tz", "2026-03-29T00:30:00.000001Z"),
    "timestamp_ltz": ("'2026-03-29 02:30:00 +00:00'::timestamp_ltz", "2026-03-29T02:30:00Z"),
    "date": ("'2026-02-28'::date", "2026-02-28"),
    "time": ("'23:59:59'::time", "23:59:59"),
    "variant": ("""parse_json('{"a": [1.5, null, "é"]}')""", '{"a":[1.5,null,"é"]}'),
    "array": ("""parse_json('["a,b", null]')::array""", '["a,b",null]'),
    "binary": ("to_binary('ff00', 'HEX')", "/wA="),
    "text": ("'007'", "007"),
    "varchar(30)": ("' NULL \U0001f600e\u0301'", " NULL \U0001f600e\u0301"),
    "char(9)": ("''", ""),
}


def test_a_value_comes_through_exactly(source: Customer):
    columns = {declared: f"C{number}" for number, declared in enumerate(EXACT)}
    source.run(
        f"CREATE TABLE contacts ({', '.join(f'{name} {declared}' for declared, name in columns.items())})",
        f"INSERT INTO contacts SELECT {', '.join(value for value, _ in EXACT.values())}",
        f"INSERT INTO contacts ({columns['text']}) VALUES (NULL)",
    )
    row, nulls = source.rows()
    assert {declared: row[name] for declared, name in columns.items()} == {declared: text for declared, (_, text) in EXACT.items()}
    assert nulls == dict.fromkeys(columns.values())


# cursor


def test_an_incremental_read_asks_the_account_for_the_window_only(contacts: Customer):
    got = load(contacts.table(), "UPDATED_AT", "timestamp", "2026-04-01T02:00:00Z")
    assert ([row["ID"] for row in got.records], got.filtered, got.mark) == (["2", "3"], 0, "2026-04-01T03:00:00Z")


def test_fifty_thousand_ties_at_the_mark_are_all_read_again_in_bounded_batches(source: Customer):
    source.run("CREATE TABLE contacts (id int, at_ timestamp_ntz)", "INSERT INTO contacts SELECT range, '2026-04-01' FROM range(50000)")
    first = load(source.table(), "AT_", "timestamp")
    source.run("INSERT INTO contacts VALUES (50001, '2026-04-01')")
    batches = list(source.table().read(Window(Cursor("AT_", "timestamp"), first.mark)))
    assert (len(first.records), sum(map(len, batches))) == (50_000, 50_001)
    assert max(map(len, batches)) <= 50_000


@pytest.mark.parametrize(
    ("declared", "cursor_type", "lower"),
    [("timestamp_tz", "timestamp", "2026-04-01T00:00:00Z"), ("timestamp_ltz", "timestamp", "2026-04-01T00:00:00Z"),
     ("timestamp_ntz", "timestamp", "2026-04-01T00:00:00Z"), ("date", "timestamp", "2026-04-01T00:00:00Z"),
     ("number(18,0)", "int", "100"), ("text", "text", "m")],
)  # fmt: skip
def test_rows_without_a_cursor_value_are_read_by_every_load(source: Customer, declared: str, cursor_type, lower: str):
    early, late = {"timestamp": ("2026-03-01", "2026-05-01"), "int": ("1", "200"), "text": ("a", "z")}[cursor_type]
    source.run(
        f"CREATE TABLE contacts (id text, c {declared})",
        f"INSERT INTO contacts VALUES ('early', '{early}'), ('late', '{late}'), ('none', NULL)",
    )
    got = load(source.table(), "C", cursor_type, lower)
    assert ({row["ID"] for row in got.records}, got.filtered) == ({"late", "none"}, 0)


def test_a_row_that_is_committed_late_is_found_by_the_overlap_and_not_without(contacts: Customer):
    first = load(contacts.table(), "UPDATED_AT", "timestamp")
    contacts.run("INSERT INTO contacts VALUES (9, 'late', '2026-04-01 02:30')")
    bare = load(contacts.table(), "UPDATED_AT", "timestamp", first.mark)
    overlapping = load(contacts.table(), "UPDATED_AT", "timestamp", subtract_overlap("timestamp", first.mark or "", 3600))
    assert ["9" in {row["ID"] for row in got.records} for got in (bare, overlapping)] == [False, True]


def test_a_mark_beyond_all_rows_goes_back_to_the_largest_there_is(contacts: Customer):
    got = load(contacts.table(), "ID", "int", "999999")
    assert (len(got.records), got.context.source_maximum) == (3, "3")


def test_text_with_a_collation_is_compared_by_its_bytes():
    column = FollowedColumn("C", "text", "COLLATED")
    assert stream._place(column) == "collate(\"C\", '')"


# failures


def test_nobody_at_the_address_is_retryable(contacts: Customer):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        with pytest.raises(SourceUnavailable):
            contacts.rows(base_url=f"http://127.0.0.1:{one.getsockname()[1]}")


def test_what_may_be_seen_and_not_selected_from_is_permission_denied(contacts: Customer):
    contacts.account.let({"READER": {"token": "t", "denied": True}})
    with pytest.raises(PermissionDenied, match="GRANT SELECT"):
        contacts.rows(user="READER", credential="t", authentication="token")


def test_an_unknown_database_or_column_is_said_to_be_that(contacts: Customer):
    with pytest.raises(PermissionDenied, match="if there is such a database"):
        contacts.rows("nowhere.public.contacts")
    with pytest.raises(ConfigurationError, match="UPDATED_AT"):
        load(contacts.table(), "updated_at", "timestamp")


@pytest.mark.parametrize(
    ("settings", "table", "outcome"),
    [
        ({}, "contacts", [("reach", True), ("authenticate", True), ("permission", True), ("sample", True)]),
        ({"credential": "wrong"}, "contacts", [("reach", True), ("authenticate", False)]),
        ({}, "nothing", [("reach", True), ("authenticate", True), ("permission", False)]),
        ({}, "contacts; DROP TABLE canary", [("reach", False)]),
    ],
)
def test_check_stops_at_the_first_step_that_fails(contacts: Customer, settings: dict, table: str, outcome: list):
    assert [(step.name, step.ok) for step in contacts.table(table, **settings).check()] == outcome
