"""A table of a real PostgreSQL server: nothing lost, nothing changed, nothing executed."""

import os
import socket
import time
from collections.abc import Iterator

import psutil
import psycopg
import pyarrow as pa
import pytest

from identity_pipeline.core import cursor
from identity_pipeline.core.cursor import Cursor
from identity_pipeline.core.errors import (
    ConfigurationError,
    CredentialError,
    PermissionDenied,
    PipelineError,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.core.text import cast_all_utf8
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.catalog import Column, Table
from identity_pipeline.readers.sql.cursor import FollowedColumn
from identity_pipeline.readers.sql.postgres import catalog, commits, stream
from identity_pipeline.readers.sql.postgres.session import SETTINGS
from identity_pipeline_tests.pooler import pooler
from identity_pipeline_tests.postgres_source import HOSTILE_NAMES, Customer, customer
from identity_pipeline_tests.sql_load import load


@pytest.fixture
def source(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Customer]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    with customer(postgres_url) as made:
        yield made


@pytest.fixture
def contacts(source: Customer) -> Customer:
    source.run("CREATE TABLE contacts (id int8 PRIMARY KEY, email text, updated_at timestamptz, note text)")
    source.run(
        "INSERT INTO contacts SELECT g, g || '@example.org', timestamptz '2026-04-01' + g * interval '1 h' FROM generate_series(1, 5) g"
    )
    return source


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


# names


def test_an_attack_as_a_table_name_is_refused(contacts: Customer):
    for name in HOSTILE_NAMES:
        with pytest.raises((ConfigurationError, SourceRejected)):
            contacts.rows(name)


def test_an_attack_as_a_column_name_is_refused(contacts: Customer):
    for name in HOSTILE_NAMES:
        with pytest.raises(ConfigurationError):
            load(contacts.table(columns=("id",)), name, "int", "1")


def test_an_attack_as_a_cursor_value_is_only_a_value(source: Customer):
    source.run("CREATE TABLE contacts (id text); INSERT INTO contacts VALUES ('!'), ('~~'), ('\U0010ffff')")
    for lower in ("contacts'); DROP TABLE canary; --", "' OR '1'='1", "%s %(x)s {}", "\\", "$1", "\u202e"):
        above = {value for value in ("!", "~~", "\U0010ffff") if value.encode() >= lower.encode()}
        assert load(source.table(), "id", "text", lower).ids == above


def test_a_cursor_value_of_another_type_is_refused(contacts: Customer):
    with pytest.raises(PipelineError):
        load(contacts.table(), "updated_at", "timestamp", "2026' OR '1'='1")


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ("order", "order"),
        ("Müller", "Müller"),
        ("müller", "MüLLER"),
        ('a"b', '"a""b"'),
        ("x y", '"x y"'),
        ("x.y", '"x.y"'),
        ("per%sent", '"per%sent"'),
        ("{0}", '"{0}"'),
        ('x"; DROP TABLE canary; --', '"x""; DROP TABLE canary; --"'),
        ("contacts", "CONTACTS"),
        ("Contacts", "Contacts"),
        ("é" * 31, "é" * 31),
        ("連絡先", "連絡先"),
    ],
)  # fmt: skip
def test_an_odd_name_that_exists_works(source: Customer, stored: str, given: str):
    quoted = '"' + stored.replace('"', '""') + '"'
    source.run(f"CREATE TABLE {quoted} ({quoted} text); INSERT INTO {quoted} VALUES ('1'), ('2')")
    assert source.rows(given) == [{stored: "1"}, {stored: "2"}]
    assert [r[stored] for r in load(source.table(given), stored, "text", "2").records] == ["2"]


def test_the_name_as_the_server_folds_it_comes_before_the_name_as_spelled(source: Customer):
    source.run("""CREATE TABLE "Contacts" (id int); CREATE TABLE contacts (id int); INSERT INTO contacts VALUES (1)""")
    assert source.rows("Contacts") == [{"id": "1"}]
    assert source.rows('"Contacts"') == []


NFD, NFC = "Mu\u0308ller", "M\u00fcller"


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize(("given", "twin"), [(NFD, NFC), (NFC, NFD)])
def test_of_two_names_that_look_the_same_the_one_that_was_written_is_read(source: Customer, given: str, twin: str, quote: str):
    for name in (given, twin):
        source.run(f"""CREATE TABLE "{name}" (id text); INSERT INTO "{name}" VALUES ('{name}')""")
    got = load(source.table(f"{quote}{given}{quote}"), "id", "text")
    assert (got.ids, got.context.warnings) == ({given}, [])


@pytest.mark.parametrize(("given", "stored"), [(NFD, NFC), (NFC, NFD)])
def test_a_name_that_exists_in_another_unicode_form_only_is_read_with_a_warning(source: Customer, given: str, stored: str):
    source.run(f"""CREATE TABLE "{stored}" (id text); INSERT INTO "{stored}" VALUES ('1')""")
    got = load(source.table(given), "id", "text")
    assert got.ids == {"1"}
    (warning,) = got.context.warnings
    assert "copy the name" in warning
    assert warning in list(source.table(given).check())[2].message


def test_a_table_of_another_schema_is_read(source: Customer):
    source.run("DROP SCHEMA IF EXISTS crm CASCADE; CREATE SCHEMA crm; CREATE TABLE crm.people (id int); INSERT INTO crm.people VALUES (7)")
    assert source.rows("crm.people") == [{"id": "7"}]


def test_an_unknown_table_is_answered_with_close_names(contacts: Customer):
    with pytest.raises(SourceRejected, match=r'"public"\."contacts"'):
        contacts.rows("contact")


def test_an_unknown_cursor_column_is_answered_with_close_names(contacts: Customer):
    with pytest.raises(ConfigurationError, match="updated_at"):
        load(contacts.table(), "Updated_At", "timestamp")


def test_chosen_columns_are_read_with_the_cursor(contacts: Customer):
    records = load(contacts.table(columns=("email",)), "id", "int", "5").records
    assert records == [{"email": "5@example.org", "id": "5"}]


# values


EXACT = {
    "numeric": ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
    "numeric(10,4)": ("1.1", "1.1000"),
    "int8": ("9007199254740993", "9007199254740993"),
    "text": ("'007'", "007"),
    "float8": ("0.1", "0.1"),
    "float4": ("0.1", "0.1"),
    "bool": ("true", "true"),
    "text[]": ("ARRAY['a,\"b', NULL, '']", '["a,\\"b",null,""]'),
    "int8[]": ("ARRAY[[9007199254740993],[2]]", "[[9007199254740993],[2]]"),
    "jsonb": ("""'{"b": [1.10, null], "a": "é"}'""", '{"a": "é", "b": [1.10, null]}'),
    "timestamptz": ("'2026-03-29 02:59:59.000001+02'", "2026-03-29T00:59:59.000001Z"),
    "timestamptz(0)": ("'2026-03-29 12:00:00+00'", "2026-03-29T12:00:00Z"),
    "timestamp": ("'2026-03-29 02:30:00.12'", "2026-03-29T02:30:00.12"),
    "timestamp(3)": ("'infinity'", "infinity"),
    "timestamptz(1)": ("'-infinity'", "-infinity"),
    "timestamptz(2)": ("'0044-03-15 00:00+00 BC'", "0044-03-15 00:00:00+00 BC"),
    "timestamptz(3)": ("'12026-01-01 00:00+00'", "12026-01-01T00:00:00Z"),
    "date": ("'2026-02-28'", "2026-02-28"),
    "date[]": ("ARRAY[date 'infinity']", '["infinity"]'),
    "time": ("'23:59:59.5'", "23:59:59.5"),
    "interval": ("'1 year 2 days'", "P1Y2D"),
    "bytea": (r"decode(repeat('ff00', 60), 'hex')", "/wD/AP8A" * 20),
    "uuid": ("'6f9619ff-8b86-d011-b42d-00cf4fc964ff'", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
    "char(5)": ("'ab'", "ab"),
    "inet": ("'10.0.0.1/8'", "10.0.0.1/8"),
    "varchar(20)": (r"E'\\N'", "\\N"),
    "varchar(21)": (r"E'\\.'", "\\."),
    "varchar(22)": (r"E'a\r\nb\n\"c\",\t\\'", 'a\r\nb\n"c",\t\\'),
    "varchar(23)": (r"E'\ufeffbom'", "\ufeffbom"),
    "varchar(24)": ("' NULL '", " NULL "),
    "varchar(25)": (r"E'\U0001F600e\u0301'", "\U0001f600e\u0301"),
}


def test_a_value_comes_through_exactly(source: Customer):
    columns = ", ".join(f'"{declared}" {declared}' for declared in EXACT)
    source.run(f"CREATE TABLE contacts ({columns})")
    source.run(f"INSERT INTO contacts VALUES ({', '.join(value for value, _ in EXACT.values())}), ({', '.join('NULL' for _ in EXACT)})")
    row, nulls = source.rows()
    assert row == {declared: text for declared, (_, text) in EXACT.items()}
    assert nulls == dict.fromkeys(EXACT)


def test_null_and_the_empty_text_are_told_apart(source: Customer):
    source.run("CREATE TABLE contacts (a text); INSERT INTO contacts VALUES (NULL), (''), (NULL), ('x'), ('')")
    assert [row["a"] for row in source.rows()] == [None, "", None, "x", ""]


def test_a_byte_order_mark_at_the_very_beginning_is_a_value(source: Customer):
    source.run("CREATE TABLE contacts (a text); INSERT INTO contacts VALUES (E'\\ufeffx'), (E'\\ufeff')")
    assert [row["a"] for row in source.rows()] == ["\ufeffx", "\ufeff"]


def test_a_domain_is_written_as_the_type_under_it(source: Customer):
    source.run("CREATE DOMAIN moment AS timestamptz; CREATE DOMAIN instant AS moment; CREATE DOMAIN number AS numeric(20,0)")
    source.run("CREATE TABLE contacts (id number, at instant); INSERT INTO contacts VALUES (5, '2026-01-01 00:00+00')")
    assert source.rows() == [{"id": "5", "at": "2026-01-01T00:00:00Z"}]
    assert load(source.table(), "id", "int", "5").mark == "5"


def test_a_batch_is_text_and_stays_as_it_is_when_cast(contacts: Customer):
    (batch,) = contacts.table().read(Window())
    assert set(batch.schema.types) == {pa.string()}
    assert cast_all_utf8(batch).equals(batch)


def test_the_roles_own_settings_do_not_change_a_value(source: Customer):
    source.run("CREATE TABLE contacts (at timestamptz, n float8, b bytea); INSERT INTO contacts VALUES ('2026-01-01 12:00+00', 0.1, 'a')")
    with source.role("odd") as dsn:
        source.run("GRANT SELECT ON contacts TO odd")
        for setting in ("timezone = 'Asia/Tokyo'", "datestyle = 'German'", "extra_float_digits = -15", "client_encoding = 'LATIN1'"):
            source.run(f"ALTER ROLE odd SET {setting}")
        assert source.rows(dsn=dsn) == [{"at": "2026-01-01T12:00:00Z", "n": "0.1", "b": "YQ=="}]


def test_a_function_of_the_source_never_stands_in_for_a_built_in_one(contacts: Customer):
    for name in ("now() RETURNS timestamptz", "to_char(timestamptz, text) RETURNS text", "current_database() RETURNS name"):
        contacts.run(f"CREATE FUNCTION public.{name} LANGUAGE plpgsql AS 'BEGIN DROP TABLE public.canary; RETURN NULL; END'")
    with contacts.role("shadowed") as dsn:
        contacts.run("GRANT SELECT ON contacts TO shadowed; ALTER ROLE shadowed SET search_path = public, pg_catalog")
        got = load(contacts.table(dsn=dsn), "updated_at", "timestamp")
    assert got.mark == "2026-04-01T05:00:00Z"


# cursor


def test_an_incremental_read_asks_the_server_for_the_window_only(contacts: Customer):
    got = load(contacts.table(), "updated_at", "timestamp", "2026-04-01T04:00:00Z")
    assert (got.ids, got.filtered, got.mark) == ({"4", "5"}, 0, "2026-04-01T05:00:00Z")


def test_a_tie_at_the_mark_is_read_again(contacts: Customer):
    mark = load(contacts.table(), "updated_at", "timestamp").mark
    contacts.run("INSERT INTO contacts VALUES (6, 'tie', '2026-04-01 05:00+00')")
    assert load(contacts.table(), "updated_at", "timestamp", mark).ids == {"5", "6"}


def test_a_row_that_was_written_before_the_mark_but_committed_after_it_is_found(contacts: Customer):
    with contacts.transaction() as late:
        late.execute("INSERT INTO contacts VALUES (6, 'late', now())")
        time.sleep(0.01)
        contacts.run("INSERT INTO contacts VALUES (7, 'punctual', now())")
        first = load(contacts.table(), "updated_at", "timestamp")
        late.commit()
    second = load(contacts.table(), "updated_at", "timestamp", first.mark)
    assert "6" not in first.ids
    assert {"6", "7"} <= second.ids


def test_the_overlap_finds_a_late_commit_that_the_role_could_not_see(contacts: Customer):
    with contacts.role("plain") as dsn, contacts.transaction() as late:
        contacts.run("GRANT SELECT ON contacts TO plain")
        late.execute("INSERT INTO contacts VALUES (6, 'late', now())")
        time.sleep(0.01)
        contacts.run("INSERT INTO contacts VALUES (7, 'punctual', now())")
        seen = contacts.table(dsn=dsn)
        first = load(seen, "updated_at", "timestamp")
        late.commit()
        lower = cursor.subtract_overlap("timestamp", first.mark or "", 600)
        assert load(seen, "updated_at", "timestamp", lower).ids == {"6", "7"}
        contacts.run("REVOKE SELECT ON contacts FROM plain")


def test_a_row_of_the_future_is_loaded_and_the_mark_stays_at_the_servers_time(contacts: Customer):
    contacts.run("INSERT INTO contacts VALUES (6, 'later', '2999-01-01')")
    got = load(contacts.table(), "updated_at", "timestamp")
    assert "6" in got.ids
    assert got.mark == "2026-04-01T05:00:00Z"


@pytest.mark.parametrize(
    ("declared", "cursor_type", "lower", "unplaced"),
    [
        ("timestamptz", "timestamp", "2026-04-01T00:00:00Z", ("NULL", "'-infinity'", "'infinity'", "'0044-03-15 00:00+00 BC'")),
        ("timestamp", "timestamp", "2026-04-01T00:00:00Z", ("NULL", "'-infinity'", "'infinity'", "'0044-03-15 00:00 BC'")),
        ("date", "timestamp", "2026-04-01T00:00:00Z", ("NULL", "'-infinity'", "'infinity'", "'0044-03-15 BC'")),
        ("int8", "int", "100", ("NULL",)),
        ("numeric(38,0)", "int", "100", ("NULL", "'NaN'")),
        ("text", "text", "m", ("NULL",)),
    ],
)
def test_rows_without_a_place_in_the_order_are_read_by_every_load(
    source: Customer, declared: str, cursor_type, lower: str, unplaced: tuple
):
    early, late = {"timestamp": ("2026-03-01", "2026-05-01"), "int": ("1", "200"), "text": ("a", "z")}[cursor_type]
    source.run(f"CREATE TABLE contacts (id text, c {declared}); INSERT INTO contacts VALUES ('early', '{early}'), ('late', '{late}')")
    for number, value in enumerate(unplaced):
        source.run(f"INSERT INTO contacts VALUES ('{number}', {value})")
    got = load(source.table(), "c", cursor_type, lower)
    assert (got.ids, got.filtered) == ({"late", *map(str, range(len(unplaced)))}, 0)


def test_an_index_on_the_cursor_serves_a_load_that_asks_for_rows_without_a_value_too(contacts: Customer):
    contacts.run("INSERT INTO contacts SELECT g, 'x', now() FROM generate_series(10, 20000) g; CREATE INDEX ON contacts (updated_at)")
    contacts.run("ANALYZE contacts")
    table = Table(("public", "contacts"), (Column("id", "bigint", "int8", "int"),), dialect=catalog.DIALECT)
    statement = stream._select(table, FollowedColumn("updated_at", "instant", "timestamptz"), Window(lower="x")).as_string()
    contacts.run("SELECT set_config('identity.lower', '2999-01-01T00:00:00Z', false)")
    plan = "\n".join(line for (line,) in contacts.run(f"EXPLAIN {statement}"))
    assert "Seq Scan" not in plan
    assert "Index" in plan


@pytest.mark.parametrize(
    ("declared", "cursor_type", "wrong", "right", "maximum"),
    [
        ("int8", "int", "9000000000000000000", "4", "4"),
        ("numeric(38,0)", "int", "9" * 38, "'NaN'", "3"),
        ("text", "text", "\uffff", "'é'", "é"),
        ("char(9)", "text", "\uffff", "'é'", "é"),
    ],
)
def test_a_mark_that_is_too_high_comes_back_and_what_it_hid_is_read(
    source: Customer, declared: str, cursor_type, wrong: str, right: str, maximum: str
):
    source.run(f"CREATE VIEW contacts AS SELECT id::text, c::{declared} FROM (VALUES (1, '1'), (2, '2'), (3, '3')) AS v(id, c)"
               f" UNION ALL SELECT '4', {right}::{declared}")  # fmt: skip
    got = load(source.table(), "c", cursor_type, wrong)
    assert (got.context.source_maximum, got.ids) == (maximum, {"1", "2", "3", "4"})
    again = load(source.table(), "c", cursor_type, maximum)
    assert (again.context.source_maximum, again.context.asked_below) == (None, False)


@pytest.mark.parametrize("declared", ["int2", "int4", "int8", "numeric(38,0)"])
def test_integers_follow_by_number_and_not_by_text(source: Customer, declared: str):
    source.run(f"CREATE TABLE contacts (id {declared}); INSERT INTO contacts VALUES (9), (10), (100), (-5)")
    got = load(source.table(), "id", "int", "10")
    assert (got.ids, got.mark) == ({"10", "100"}, "100")


@pytest.mark.parametrize("declared", ["int2", "int4", "int8", "numeric(38,0)"])
@pytest.mark.parametrize("lower", ["-" + "9" * 38, "9" * 38])
def test_a_bound_beyond_the_columns_range_is_no_error(source: Customer, declared: str, lower: str):
    source.run(f"CREATE TABLE contacts (id {declared}); INSERT INTO contacts VALUES (9), (10), (100), (-5)")
    assert sum(map(len, source.table().read(Window(Cursor("id", "int"), lower)))) == 4


@pytest.mark.parametrize("declared", ["text", "varchar(9)", "char(9)"])
def test_text_follows_by_its_bytes(source: Customer, declared: str):
    source.run(f"CREATE TABLE contacts (id {declared}); INSERT INTO contacts VALUES ('Z'), ('a'), ('é'), ('9'), ('10')")
    got = load(source.table(), "id", "text", "a")
    assert (got.ids, got.mark) == ({"a", "é"}, "é")
    assert load(source.table(), "id", "text", "9").ids == {"9", "Z", "a", "é"}


def test_timestamps_without_zone_are_read_in_the_sources_zone(source: Customer):
    source.run("CREATE TABLE contacts (id int, at timestamp); INSERT INTO contacts VALUES (1, '2026-07-01 11:59'), (2, '2026-07-01 12:00')")
    table = source.table(timezone="Europe/Berlin")
    assert load(table, "at", "timestamp").mark == "2026-07-01T10:00:00Z"
    got = load(table, "at", "timestamp", "2026-07-01T10:00:00Z")
    assert (got.ids, got.filtered) == ({"2"}, 0)


def test_a_date_is_read_again_until_its_day_is_over(source: Customer):
    source.run("CREATE TABLE contacts (id int, day date); INSERT INTO contacts VALUES (1, current_date - 5), (2, current_date)")
    first = load(source.table(), "day", "timestamp")
    source.run("INSERT INTO contacts VALUES (3, current_date)")
    assert load(source.table(), "day", "timestamp", first.mark).ids == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("declared", "cursor_type"),
    [("timestamptz", "int"), ("int8", "timestamp"), ("text", "timestamp"), ("int8", "text"), ("uuid", "text"), ("numeric(9,2)", "int"),
     ("numeric", "int"), ("jsonb", "text"), ("date", "text"), ("float8", "int")],
)  # fmt: skip
def test_a_cursor_type_that_the_column_has_not_is_refused_with_both_names(source: Customer, declared: str, cursor_type):
    source.run(f"CREATE TABLE contacts (id {declared})")
    with pytest.raises(ConfigurationError, match="'id'") as refused:
        load(source.table(), "id", cursor_type)
    assert source.run("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'contacts'::regclass AND attnum = 1")[0][
        0
    ] in str(refused.value)


# amounts


def test_a_stream_of_300_mb_does_not_grow_the_process_by_it(source: Customer):
    source.run("CREATE VIEW contacts AS SELECT generate_series(1, 300000) AS id, repeat('x', 1000) AS note")
    process = psutil.Process()
    rows, before, most = 0, process.memory_info().rss, 0
    for batch in source.table().read(Window()):
        rows += len(batch)
        assert len(batch) <= 50_000
        assert batch.nbytes <= 64 * 2**20
        most = max(most, process.memory_info().rss - before)
    assert rows == 300_000
    assert most < 160 * 2**20


def test_a_row_larger_than_a_batch_is_read_whole(source: Customer):
    source.run("CREATE TABLE contacts AS SELECT g AS id, repeat('é\"', 9 * 1024 * 1024) AS note FROM generate_series(1, 2) g")
    assert [(r["id"], len(r["note"])) for r in source.rows()] == [("1", 18 * 2**20), ("2", 18 * 2**20)]


def test_a_reader_that_has_enough_stops_the_server(source: Customer):
    source.run("CREATE VIEW contacts AS SELECT generate_series(1, 1000000000000) AS id")
    stream = source.table().read(Window())
    next(stream)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 30
    assert source.run("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'identity_pipeline' AND state = 'active'") == [(0,)]


def test_a_limit_reaches_the_server(contacts: Customer):
    assert sum(len(b) for b in contacts.table().read(Window(Cursor("id", "int"), "2", limit=3))) == 3


def test_an_empty_table_yields_nothing(source: Customer):
    source.run("CREATE TABLE contacts (id int)")
    assert source.rows() == []


# failures


def test_a_wrong_password_is_a_credential_error_without_the_password(contacts: Customer):
    with pytest.raises(CredentialError) as refused:
        contacts.rows(dsn=contacts.dsn(password="canary-of-a-password"))
    assert "canary-of-a-password" not in str(refused.value)


def test_an_unknown_database_is_a_configuration_error(contacts: Customer):
    with pytest.raises(ConfigurationError, match="no such database"):
        contacts.rows(dsn=contacts.dsn(dbname="nowhere"))


def test_a_table_without_grant_is_permission_denied_and_says_which_grant(contacts: Customer):
    with contacts.role("poor") as dsn, pytest.raises(PermissionDenied, match="GRANT SELECT"):
        contacts.rows(dsn=dsn)


def test_a_column_without_grant_is_named_and_the_others_can_be_read(contacts: Customer):
    with contacts.role("poor") as dsn:
        contacts.run("GRANT SELECT (id, email) ON contacts TO poor")
        with pytest.raises(PermissionDenied, match="updated_at"):
            contacts.rows(dsn=dsn)
        assert len(contacts.rows(dsn=dsn, columns=("id", "email"))) == 5


def test_a_schema_without_grant_is_permission_denied(source: Customer):
    source.run("DROP SCHEMA IF EXISTS crm CASCADE; CREATE SCHEMA crm; CREATE TABLE crm.people (id int)")
    with source.role("poor") as dsn:
        source.run("GRANT SELECT ON crm.people TO poor")
        with pytest.raises(PermissionDenied, match="USAGE"):
            source.rows("crm.people", dsn=dsn)


def test_nobody_at_the_port_is_retryable(contacts: Customer, unused_port: int):
    with pytest.raises(SourceUnavailable):
        contacts.rows(dsn=contacts.dsn(port=str(unused_port)))


def test_a_server_that_ends_the_session_in_the_middle_is_retryable(source: Customer):
    source.run("CREATE VIEW contacts AS SELECT generate_series(1, 1000000000) AS id, repeat('x', 500) AS note")
    stream = source.table().read(Window())
    next(stream)
    source.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'identity_pipeline'")
    with pytest.raises(SourceUnavailable):
        list(stream)


def test_a_locked_table_is_retryable(contacts: Customer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SETTINGS, "lock_timeout", "100ms")
    with contacts.transaction() as other:
        other.execute("LOCK TABLE contacts")
        with pytest.raises(SourceUnavailable, match="55P03"):
            contacts.rows()


def test_a_failing_view_is_reported_without_its_values(source: Customer):
    source.run("CREATE VIEW contacts AS SELECT (note || '')::int AS id FROM (VALUES ('canary@example.org')) AS v(note)")
    with pytest.raises(SourceRejected, match="22P02") as refused:
        source.rows()
    assert "canary@" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_a_view_that_writes_is_stopped(source: Customer):
    source.run("CREATE FUNCTION public.kill() RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.canary; RETURN 1; END'")
    source.run("CREATE VIEW contacts AS SELECT public.kill() AS id")
    with pytest.raises(SourceRejected, match="25006"):
        source.rows()


def test_a_column_that_goes_during_the_read_is_no_silence(contacts: Customer, monkeypatch: pytest.MonkeyPatch):
    look = commits.look

    def meanwhile(*args):
        with psycopg.connect(contacts.url, autocommit=True) as other:
            other.execute("SET lock_timeout = '2s'")
            other.execute("ALTER TABLE contacts DROP COLUMN note")
        return look(*args)

    monkeypatch.setattr(commits, "look", meanwhile)
    with pytest.raises(SourceRejected, match="42703"):
        contacts.rows()


# connection test


def test_check_passes_step_by_step(contacts: Customer):
    contacts.run("ANALYZE contacts")
    steps = list(contacts.table().check())
    assert [(step.name, step.ok) for step in steps] == [("reach", True), ("authenticate", True), ("permission", True), ("sample", True)]
    assert "superuser" in steps[1].message or "run programs" in steps[1].message
    assert "5 rows of about 5, 4 columns, primary key id" in steps[3].message


def test_check_of_a_read_only_role_has_nothing_to_warn_of(contacts: Customer):
    with contacts.role("reader") as dsn:
        contacts.run("GRANT SELECT ON contacts TO reader; GRANT pg_read_all_stats TO reader")
        steps = list(contacts.table(dsn=dsn).check())
    assert [step.message for step in steps[1:3]] == ["signed in as reader", 'may read "public"."contacts"']


def test_a_load_and_a_check_warn_when_row_level_security_hides_rows(contacts: Customer):
    contacts.run("ALTER TABLE contacts ENABLE ROW LEVEL SECURITY")
    assert load(contacts.table(), "id", "int").context.warnings == []
    with contacts.role("reader") as dsn:
        contacts.run("GRANT SELECT ON contacts TO reader")
        (warning,) = load(contacts.table(dsn=dsn), "id", "int").context.warnings
        assert "row-level security" in warning
        assert "row-level security" in list(contacts.table(dsn=dsn).check())[2].message


@pytest.mark.parametrize(
    ("fields", "table", "outcome"),
    [
        ({"port": "1"}, "contacts", [("reach", False)]),
        ({"password": "wrong"}, "contacts", [("reach", True), ("authenticate", False)]),
        ({}, "nothing", [("reach", True), ("authenticate", True), ("permission", False)]),
        ({}, "contacts; DROP TABLE canary", [("reach", False)]),
    ],
)  # fmt: skip
def test_check_stops_at_the_first_step_that_fails(contacts: Customer, fields: dict, table: str, outcome: list):
    steps = contacts.table(table, dsn=contacts.dsn(**fields)).check()
    assert [(step.name, step.ok) for step in steps] == outcome


# poolers

LEFT = (
    "SET search_path = public, pg_catalog; SET timezone = 'Asia/Tokyo'; SET extra_float_digits = -15; SET datestyle = 'German'",
    "SET statement_timeout = '1h'; SET identity.lower = '2999-01-01'; SET identity.since = '7'; SET default_transaction_read_only = off",
    "SET identity.timezone = 'Asia/Tokyo'; SET bytea_output = 'escape'; SET transform_null_equals = on; SET intervalstyle = 'sql_standard'",
)
SHOWN = ("search_path", "timezone", "extra_float_digits", "datestyle", "statement_timeout", "lock_timeout", "application_name",
         "identity.lower", "identity.since", "identity.timezone", "intervalstyle", "default_transaction_read_only")  # fmt: skip


def _shown(session: psycopg.Connection) -> list[str | None]:
    """The session's settings; one that was local to a transaction is empty afterwards."""
    rows = (session.execute("SELECT nullif(current_setting(%s, true), '')", (name,)).fetchone() for name in SHOWN)
    return [row and row[0] for row in rows]


def test_a_transaction_mode_pooler_is_read_through_in_one_transaction_and_finds_its_sessions_as_they_were(contacts: Customer):
    contacts.run("CREATE TABLE things (id int, at timestamptz, n float8, b bytea, i interval)")
    contacts.run("INSERT INTO things VALUES (1, '2026-01-01 12:00+00', 0.1, 'a', '1 day'), (2, NULL, 0.1, 'a', '1 day')")
    expected = contacts.rows("things")
    with pooler(contacts.url, *LEFT) as between:
        before = [_shown(session) for session in between.sessions]
        table = contacts.table("things", dsn=contacts.dsn(port=str(between.port)))
        state = None
        for _ in range(4):
            got = load(table, "at", "timestamp", "2026-01-01T00:00:00Z", state)
            assert (got.records, got.context.warnings) == (expected, [])
            state = got.context.state
        assert [step.ok for step in table.check()] == [True] * 4
        assert sorted(between.transactions) == [1, 2, 2]
        between.close()
        assert [_shown(session) for session in between.sessions] == before


# this machine


def test_the_environment_of_libpq_has_no_influence(contacts: Customer, monkeypatch: pytest.MonkeyPatch, tmp_path):
    (tmp_path / "services").write_text("[rogue]\nhost=203.0.113.1\noptions=-c statement_timeout=1\n")
    rogue = {
        "PGHOSTADDR": "203.0.113.1", "PGHOST": "203.0.113.1", "PGPORT": "1", "PGDATABASE": "nowhere", "PGUSER": "nobody",
        "PGPASSWORD": "wrong", "PGOPTIONS": "-c default_transaction_read_only=off -c statement_timeout=1", "PGSERVICE": "rogue",
        "PGSERVICEFILE": str(tmp_path / "services"), "PGSSLMODE": "verify-full", "PGCONNECT_TIMEOUT": "1", "PGTZ": "Mars/Olympus",
        "PGTARGETSESSIONATTRS": "standby", "PGREQUIREAUTH": "none", "PGCLIENTENCODING": "SQL_ASCII", "PGAPPNAME": "rogue",
        "PGSSLROOTCERT": "/nowhere", "PGGSSENCMODE": "require", "PGDATESTYLE": "Mars", "PGMAXPROTOCOLVERSION": "latest",
        "PGSSLKEY": "/nowhere", "PGCHANNELBINDING": "require", "PGREQUIREPEER": "root", "PGSSLMINPROTOCOLVERSION": "TLSv1.3",
    }  # fmt: skip
    for name, value in rogue.items():
        monkeypatch.setenv(name, value)
    assert len(contacts.rows()) == 5
    assert {name: os.environ[name] for name in rogue} == rogue


def test_a_password_file_of_this_machine_is_never_read(contacts: Customer, monkeypatch: pytest.MonkeyPatch, tmp_path):
    with contacts.role("filed", "in-the-file") as dsn:
        contacts.run("GRANT SELECT ON contacts TO filed")
        assert len(contacts.rows(dsn=dsn)) == 5
        passfile = tmp_path / ".pgpass"
        passfile.write_text("*:*:*:*:in-the-file\n")
        passfile.chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("PGPASSFILE", str(passfile))
        with pytest.raises(CredentialError):
            contacts.rows(dsn=contacts.dsn(user="filed", password=""))
