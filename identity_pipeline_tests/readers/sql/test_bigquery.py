"""A table of BigQuery by Google's own client: nothing lost, changed or executed, no waiting for what is down, no surprise in cost."""

import json
import socket
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlglot
from google.cloud.bigquery import SchemaField
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from identity_pipeline.core.cursor import Cursor, subtract_overlap
from identity_pipeline.core.errors import (
    ConfigurationError,
    CredentialError,
    LimitExceeded,
    PermissionDenied,
    PipelineError,
    RateLimited,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.core.secret import StoredToken
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.bigquery import BigQueryEngine, catalog, safe_bigquery_identifier, stream, transport
from identity_pipeline.readers.sql.table import SqlTable
from identity_pipeline_tests.servers.bigquery_api import PROJECT, BigQueryAPI, Refused
from identity_pipeline_tests.sql_load import load

HOSTILE_NAMES = (
    "contacts; DROP TABLE canary", "contacts`; DROP TABLE canary; --", "`contacts``; DROP TABLE canary`", "contacts WHERE 1=1; --",
    "contacts FOR SYSTEM_TIME AS OF x()", "UNNEST([1,2])", "EXTERNAL_QUERY('c', 'SELECT 1')", "ML.PREDICT(MODEL m)", "(SELECT 1)",
    "contacts_*", "contacts$20260101", "contacts@-3600000", "contacts,canary", "contacts -- ;", "contacts/**/", "contacts#", "'contacts'",
    '"contacts"', "con\\tacts", "contacts\x00", "contacts\u202e", "contacts\ud800", "contacts\n", "%s", "?", "@lower", "{}", "*", "", ".",
    "crm.", ".contacts", "a.b.c.d.e", "``", "`", "`crm`.contacts`", "`crm.contacts", "c" * 1025, "INFORMATION_SCHEMA.TABLES",
    "my-project.INFORMATION_SCHEMA.TABLES", "Bad_Project.crm.contacts", "my-project.cr-m.contacts",
)  # fmt: skip


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryAPI]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    monkeypatch.setattr(stream, "PATIENCE", 5.0)
    with BigQueryAPI() as api:
        api.run("CREATE SCHEMA crm", "CREATE TABLE crm.canary (alive int)")
        yield api
        assert api.run("SELECT count(*) FROM crm.canary") == [(0,)], "the canary is dead"


@pytest.fixture
def contacts(api: BigQueryAPI) -> BigQueryAPI:
    api.run(
        "CREATE TABLE crm.contacts (id bigint, email text, updated_at timestamptz)",
        "INSERT INTO crm.contacts VALUES (1, '1@example.org', '2026-04-01 01:00+00'), (2, '2@example.org', '2026-04-01 02:00+00'),"
        " (3, '3@example.org', '2026-04-01 03:00+00')",
    )
    return api


def table(api: BigQueryAPI, name: str = "crm.contacts", *, key: str | StoredToken | None = "", **settings: Any) -> SqlTable:
    """One of the tables, as the reader sees it. ``key`` empty: the account's own; None: the machine's."""
    own = {setting: settings.pop(setting) for setting in ("timezone", "columns") if setting in settings}
    secret = StoredToken(lambda: key or api.account()) if isinstance(key, str) else key
    chosen: dict[str, Any] = {"project": PROJECT, "base_url": f"http://127.0.0.1:{api.port}"} | settings
    return SqlTable(BigQueryEngine(secret, **chosen), name, **own)


def rows(api: BigQueryAPI, name: str = "crm.contacts", **settings: Any) -> list[dict]:
    """All records of a table."""
    return [row for batch in table(api, name, **settings).read(Window()) for row in batch.to_pylist()]


# names


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_rejects_unsafe_table_name(name: str):
    with pytest.raises(ConfigurationError, match=r"^table: "):
        safe_bigquery_identifier(name, project=PROJECT, dataset="crm")


@pytest.mark.parametrize(
    ("name", "safe"),
    [("contacts", "`my-project`.`crm`.`contacts`"), ("Sales.Contacts", "`my-project`.`Sales`.`Contacts`"),
     ("`other-project.sales.contacts`", "`other-project`.`sales`.`contacts`"), ("other-project.sales.c-1", "`other-project`.`sales`.`c-1`"),
     ("`other-project`.`sales`.`Kunden 2026 ü`", "`other-project`.`sales`.`Kunden 2026 ü`"),
     ("example.com:project.crm.contacts", "`example.com:project`.`crm`.`contacts`")],
)  # fmt: skip
def test_a_safe_identifier_is_the_name_as_bigquery_reads_it_in_quotes(name: str, safe: str):
    assert safe_bigquery_identifier(name, project=PROJECT, dataset="crm") == safe


@pytest.mark.parametrize("settings", [{"project": "P`"}, {"project": PROJECT, "dataset": "a.b"}, {"project": PROJECT, "dataset": "a`b"}])
def test_project_and_dataset_are_one_name_each(settings: dict):
    with pytest.raises(ConfigurationError, match=r"^project or dataset: "):
        safe_bigquery_identifier("contacts", **settings)


def test_without_a_dataset_a_name_says_its_own():
    assert safe_bigquery_identifier("crm.contacts", project=PROJECT) == "`my-project`.`crm`.`contacts`"
    with pytest.raises(ConfigurationError, match=r"expected project\.dataset\.table"):
        safe_bigquery_identifier("contacts", project=PROJECT)


_PIECES = st.lists(st.sampled_from([*"`.aZ9_- '\"\\;/@(:*$#ü", "``", "`.`", "--", "/*", "SELECT", "my-project"]), max_size=12)


@given(st.one_of(_PIECES.map("".join), st.text(max_size=20)))
def test_every_name_that_is_accepted_is_one_table_of_three_parts(name: str):
    try:
        safe = safe_bigquery_identifier(name, project=PROJECT, dataset="crm")
    except ConfigurationError:
        return
    tree = sqlglot.parse_one(f"SELECT 1 FROM {safe} WHERE 2 = 3", read="bigquery")
    [found] = tree.find_all(exp.Table)
    assert (len(found.parts), tree.args["where"].sql()) == (3, "WHERE 2 = 3")


def test_an_attack_as_a_name_is_refused(contacts: BigQueryAPI):
    for name in HOSTILE_NAMES:
        with pytest.raises((ConfigurationError, SourceRejected)):
            rows(contacts, name)
    for name in HOSTILE_NAMES[:6]:
        with pytest.raises(ConfigurationError, match=r"^cursor_column"):
            load(table(contacts, columns=("id",)), name, "int", "1")


def test_an_attack_as_a_cursor_value_is_only_a_value(api: BigQueryAPI):
    api.run("CREATE TABLE crm.contacts (id text)", "INSERT INTO crm.contacts VALUES ('!'), ('~~')")
    for lower in ("contacts'); DROP TABLE crm.canary; --", "' OR '1'='1", "%s ? @lower {}", "\\"):
        above = {value for value in ("!", "~~") if value >= lower}
        assert {row["id"] for row in load(table(api), "id", "text", lower).records} == above


def test_what_is_not_there_is_said_with_close_names(contacts: BigQueryAPI):
    with pytest.raises(SourceRejected, match=r"no `my-project`\.`crm`\.`contact`.*`my-project`\.`crm`\.`contacts`"):
        rows(contacts, "crm.contact")
    with pytest.raises(SourceRejected, match=r"no `my-project`\.`sales`\.`contacts`"):
        rows(contacts, "sales.contacts")
    with pytest.raises(ConfigurationError, match=r"cursor_column: .*updated_at"):
        load(table(contacts), "updatedat", "timestamp")


# signing in


def test_another_key_of_the_account_is_a_credential_error(contacts: BigQueryAPI):
    old = contacts.account()
    contacts.new_key()
    with pytest.raises(CredentialError):
        rows(contacts, key=old)


def test_a_token_that_ends_in_the_middle_of_a_read_is_replaced(contacts: BigQueryAPI):
    contacts.page = 1
    batches = table(contacts).read(Window())
    found = [next(batches)]
    contacts.forget_tokens()
    assert sum(batch.num_rows for batch in (*found, *batches)) == 3


@pytest.mark.parametrize(
    "key",
    ["no JSON", "[]", "{}", '{"type": "authorized_user", "refresh_token": "r", "client_id": "c", "client_secret": "s"}',
     '{"type": "external_account", "credential_source": {"file": "/etc/passwd"}, "token_uri": "https://example.org"}',
     '{"type": "service_account", "private_key": "no key", "client_email": "e", "token_uri": "https://example.org"}',
     '{"type": "service_account", "private_key": 1, "client_email": "e", "token_uri": "https://example.org"}'],
)  # fmt: skip
def test_what_is_no_key_of_a_service_account_is_refused(contacts: BigQueryAPI, key: str):
    with pytest.raises(ConfigurationError, match=r"^service_account: expected"):
        rows(contacts, key=key)


@pytest.mark.parametrize("address", ["http://169.254.169.254/token", "https://10.0.0.1/token", "file:///etc/passwd"])
def test_a_key_leads_to_no_address_inside(contacts: BigQueryAPI, address: str):
    with pytest.raises(ConfigurationError):
        rows(contacts, key=contacts.account(token_uri=address))


def test_nothing_but_the_two_addresses_is_looked_up(contacts: BigQueryAPI, monkeypatch: pytest.MonkeyPatch):
    asked, look_up = set(), socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **options: Any) -> Any:
        asked.add(host)
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert len(rows(contacts)) == 3
    time.sleep(0.2)  # what is done in the background would be by then
    assert asked == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json"), ("BIGQUERY_EMULATOR_HOST", "http://203.0.113.1"),
     ("GOOGLE_CLOUD_PROJECT", "another"), ("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "example.org"), ("HTTP_PROXY", "http://203.0.113.1:1")],
)  # fmt: skip
def test_the_machines_own_settings_have_no_influence(contacts: BigQueryAPI, monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(name, value)
    assert len(rows(contacts)) == 3


def test_the_machines_own_credentials_sign_in_only_when_asked(contacts: BigQueryAPI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "key.json").write_text(contacts.account())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    assert len(rows(contacts, key=None)) == 3
    with pytest.raises(ConfigurationError):
        rows(contacts, key="{}")
    (tmp_path / "key.json").unlink()
    with pytest.raises(CredentialError, match="no application default credentials"):
        rows(contacts, key=None)


def test_key_and_token_are_redacted(contacts: BigQueryAPI):
    redactor = Redactor()
    key = StoredToken(contacts.account, redactor)
    rows(contacts, key=key)
    held = [json.loads(contacts.account())["private_key"].splitlines()[5], *contacts.tokens]
    assert len(held) == 2
    assert redactor.redact(" ".join(held)) == "*** ***"
    assert held[0] not in repr(table(contacts, key=key))


# waiting


def test_nobody_at_the_address_is_noticed_at_once(contacts: BigQueryAPI):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        down = one.getsockname()[1]
        began = time.monotonic()
        for settings in ({"base_url": f"http://127.0.0.1:{down}"}, {"key": contacts.account(down)}):
            with pytest.raises(SourceUnavailable, match="cannot be reached"):
                rows(contacts, **settings)
    assert time.monotonic() - began < 30


def test_who_listens_and_never_answers_is_given_up(contacts: BigQueryAPI, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "LONGEST", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(SourceUnavailable):
            rows(contacts, base_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - began < 30


def test_what_fails_in_passing_is_asked_again(contacts: BigQueryAPI):
    contacts.next_refusals = [Refused(503, "backendError"), Refused(403, "rateLimitExceeded")]
    assert len(rows(contacts)) == 3
    assert contacts.next_refusals == []


def test_a_result_that_is_not_there_yet_is_waited_for(contacts: BigQueryAPI):
    contacts.slow = 3
    assert len(rows(contacts)) == 3


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [(Refused(403, "quotaExceeded"), RateLimited), (Refused(403, "accessDenied"), PermissionDenied),
     (Refused(400, "invalidQuery"), SourceRejected), (Refused(400, "resourcesExceeded"), SourceRejected),
     (Refused(400, "stopped"), SourceUnavailable), (Refused(404, "notFound"), SourceRejected),
     (Refused(400, "bytesBilledLimitExceeded"), LimitExceeded)],
)  # fmt: skip
def test_a_query_that_is_killed_is_the_error_of_who_must_act(contacts: BigQueryAPI, refusal: Refused, kind: type[PipelineError]):
    contacts.kills = [refusal]
    with pytest.raises(kind, match=refusal.reason):
        rows(contacts)


def test_an_error_on_a_later_page_ends_the_read(contacts: BigQueryAPI):
    contacts.page = 1
    batches = table(contacts).read(Window())
    next(batches)
    contacts.next_refusals = [Refused(400, "invalid")]
    with pytest.raises(SourceRejected):
        list(batches)


# cost


def test_a_read_is_asked_for_its_cost_before_it_is_made(contacts: BigQueryAPI):
    contacts.bytes_of_a_row = 10**9
    with pytest.raises(LimitExceeded, match=r"3\.0 GB.*maximum_bytes_billed is 2 GB"):
        rows(contacts, maximum_bytes_billed=2 * 10**9)
    assert contacts.dry_runs == 1
    assert len(rows(contacts, maximum_bytes_billed=3 * 10**9)) == 3


# values

EXACT = {
    "bigint": ("9007199254740993", "9007199254740993"),
    "decimal(38,9)": ("12345678901234567890123456789.123456789", "12345678901234567890123456789.123456789"),
    "decimal(38,20)": ("-123456789012345678.12345678901234567891", "-123456789012345678.12345678901234567891"),
    "double": ("0.1", "0.1"),
    "boolean": ("true", "true"),
    "text": ("' NULL 007 \U0001f600e\u0301'", " NULL 007 \U0001f600e\u0301"),
    "blob": ("'\\xFF\\x00'::blob", "/wA="),
    "date": ("'2026-02-28'", "2026-02-28"),
    "time": ("'23:59:59.5'", "23:59:59.5"),
    "timestamp": ("'2026-03-29 02:30:00.000001'", "2026-03-29T02:30:00.000001"),
    "timestamptz": ("'2026-03-29 02:30:00.12+02'", "2026-03-29T00:30:00.12Z"),
    "json": ("""'{"a": [1, null, "é"]}'""", '{"a":[1,null,"é"]}'),
    'struct(inner_id bigint, "größe" text)': (
        "{'inner_id': 9007199254740993, 'größe': 'a\"b'}",
        '{"inner_id":9007199254740993,"größe":"a\\"b"}',
    ),
    "text[]": ("['a,b', 'c']", '["a,b","c"]'),
    "struct(a bigint)[]": ("[{'a': 1}, {'a': null}]", '[{"a":1},{"a":null}]'),
    "geometry": ("'POINT (13.4 52.5)'", "POINT (13.4 52.5)"),
}


def test_a_value_comes_through_exactly(api: BigQueryAPI):
    columns = {declared: f"c{number}" for number, declared in enumerate(EXACT)}
    api.run(
        f"CREATE TABLE crm.contacts ({', '.join(f'{name} {declared}' for declared, name in columns.items())})",
        f"INSERT INTO crm.contacts SELECT {', '.join(value for value, _ in EXACT.values())}",
        "INSERT INTO crm.contacts (c0) VALUES (NULL)",
    )
    row, nulls = rows(api)
    assert {declared: row[name] for declared, name in columns.items()} == {declared: text for declared, (_, text) in EXACT.items()}
    assert nulls == dict.fromkeys(columns.values())


def test_zeros_of_a_numeric_change_no_value(api: BigQueryAPI):
    api.run("CREATE TABLE crm.contacts (n decimal(38,9))", "INSERT INTO crm.contacts VALUES (1.10), (0), (-0.000000001)")
    assert [Decimal(row["n"]) for row in rows(api)] == [Decimal("1.10"), 0, Decimal("-0.000000001")]


# cursor


def test_an_incremental_read_asks_for_the_window_only(contacts: BigQueryAPI):
    got = load(table(contacts), "updated_at", "timestamp", "2026-04-01T02:00:00Z")
    assert ([row["id"] for row in got.records], got.filtered, got.mark) == (["2", "3"], 0, "2026-04-01T03:00:00Z")


def test_fifty_thousand_ties_at_the_mark_are_all_read_again_in_bounded_batches(api: BigQueryAPI):
    api.run(
        "CREATE TABLE crm.contacts (id bigint, at_ timestamptz)", "INSERT INTO crm.contacts SELECT range, '2026-04-01' FROM range(50000)"
    )
    first = load(table(api), "at_", "timestamp")
    api.run("INSERT INTO crm.contacts VALUES (50001, '2026-04-01')")
    batches = list(table(api).read(Window(Cursor("at_", "timestamp"), first.mark)))
    assert (len(first.records), sum(map(len, batches))) == (50_000, 50_001)
    assert max(map(len, batches)) <= 50_000


@pytest.mark.parametrize(
    ("declared", "cursor_type", "lower"),
    [("timestamptz", "timestamp", "2026-04-01T00:00:00Z"), ("timestamp", "timestamp", "2026-04-01T00:00:00Z"),
     ("date", "timestamp", "2026-04-01T00:00:00Z"), ("bigint", "int", "100"), ("text", "text", "m")],
)  # fmt: skip
def test_rows_without_a_cursor_value_are_read_by_every_load(api: BigQueryAPI, declared: str, cursor_type, lower: str):
    early, late = {"timestamp": ("2026-03-01", "2026-05-01"), "int": ("1", "200"), "text": ("a", "z")}[cursor_type]
    api.run(
        f"CREATE TABLE crm.contacts (id text, c {declared})",
        f"INSERT INTO crm.contacts VALUES ('early', '{early}'), ('late', '{late}'), ('none', NULL)",
    )
    got = load(table(api), "c", cursor_type, lower)
    assert ({row["id"] for row in got.records}, got.filtered) == ({"late", "none"}, 0)


def test_a_row_that_is_committed_late_is_found_by_the_overlap_and_not_without(contacts: BigQueryAPI):
    first = load(table(contacts), "updated_at", "timestamp")
    contacts.run("INSERT INTO crm.contacts VALUES (9, 'late', '2026-04-01 02:30+00')")
    bare = load(table(contacts), "updated_at", "timestamp", first.mark)
    overlapping = load(table(contacts), "updated_at", "timestamp", subtract_overlap("timestamp", first.mark or "", 3600))
    assert ["9" in got.ids for got in (bare, overlapping)] == [False, True]


def test_a_mark_beyond_all_rows_goes_back_to_the_largest_there_is(contacts: BigQueryAPI):
    got = load(table(contacts), "id", "int", "999999")
    assert (len(got.records), got.context.source_maximum) == (3, "3")


def test_wall_clock_is_read_in_the_time_zone_of_the_source(api: BigQueryAPI):
    api.run("CREATE TABLE crm.contacts (id bigint, at_ timestamp)",
            "INSERT INTO crm.contacts VALUES (1, '2026-07-01 11:59'), (2, '2026-07-01 12:00')")  # fmt: skip
    got = load(table(api, timezone="Europe/Berlin"), "at_", "timestamp", "2026-07-01T10:00:00Z")
    assert [row["id"] for row in got.records] == ["2"]


@pytest.mark.parametrize("field", [{"type": "STRING", "collation": "und:ci"}, {"type": "STRING", "mode": "REPEATED"}, {"type": "FLOAT"}])
def test_what_has_no_order_to_follow_is_no_cursor(field: dict):
    column = catalog._column(SchemaField.from_api_repr({"name": "c", "mode": "NULLABLE"} | field), in_key=False)
    assert column.cursor_kind is None


# connection test


@pytest.mark.parametrize(
    ("settings", "name", "right", "outcome"),
    [
        ({}, "crm.contacts", None, [("reach", True), ("authenticate", True), ("permission", True), ("sample", True)]),
        ({"key": "{}"}, "crm.contacts", None, [("reach", False)]),
        ({}, "crm.contacts", "bigquery.jobs.create", [("reach", False)]),
        ({}, "crm.contacts", "bigquery.tables.getData", [("reach", True), ("authenticate", True), ("permission", False)]),
        ({}, "crm.contacts", "bigquery.tables.get", [("reach", True), ("authenticate", True), ("permission", False)]),
        ({}, "crm.nothing", None, [("reach", True), ("authenticate", True), ("permission", False)]),
        ({}, "contacts; DROP TABLE canary", None, [("reach", False)]),
    ],
)
def test_check_stops_at_the_first_step_that_fails(contacts: BigQueryAPI, settings: dict, name: str, right: str | None, outcome: list):
    if right:
        contacts.rights.remove(right)
    assert [(step.name, step.ok) for step in table(contacts, name, **settings).check()] == outcome


def test_check_says_that_a_role_may_write(contacts: BigQueryAPI):
    contacts.rights.append("bigquery.tables.updateData")
    assert "SELECT is all that is needed" in list(table(contacts).check())[2].message
