"""postgres_identity: its settings, its field map and the cursor it declares. What it reads is the SQL reader's promise."""

from collections.abc import Iterator

import pytest

from identity_pipeline.connectors.base import Secret
from identity_pipeline.connectors.postgres_identity import PostgresIdentity
from identity_pipeline.core.cursor import Cursor, Reading
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.secret import Env, StoredToken
from identity_pipeline.core.window import Window
from identity_pipeline_tests.postgres_source import Customer, customer


@pytest.fixture
def contacts(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Customer]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    with customer(postgres_url) as made:
        made.run("CREATE TABLE contacts (id int8 PRIMARY KEY, email text, at timestamp)")
        made.run("INSERT INTO contacts VALUES (1, 'a@example.org', '2026-07-01 11:59'), (2, 'b@example.org', '2026-07-01 12:00')")
        yield made


def _connector(dsn: str, table: str = "contacts", **settings) -> PostgresIdentity:
    secret = Secret.bound(Env("DSN"), StoredToken(lambda: dsn))
    return PostgresIdentity(connection_string=secret, table=table, **settings)


def test_a_connector_reads_the_table_of_its_settings(contacts: Customer):
    connector = _connector(contacts.dsn(), '"contacts"', columns=["id"], cursor_timezone="Europe/Berlin")
    cursor = connector.cursor("at", "timestamp")
    rows = [row for batch in connector.read(Window(cursor, "2026-07-01T10:00:00Z")) for row in batch.to_pylist()]
    assert rows == [{"id": "2", "at": "2026-07-01T12:00:00"}]
    assert [step.ok for step in connector.check()] == [True] * 4


def test_timestamps_without_a_zone_are_of_the_sources_zone():
    connector = _connector("", cursor_timezone="Europe/Berlin")
    assert connector.cursor("at", "timestamp") == Cursor("at", "timestamp", Reading("Europe/Berlin"))
    with pytest.raises(ConfigurationError, match="cursor_timezone"):
        _connector("", cursor_timezone="Mars/Olympus").cursor("at", "timestamp")


def test_a_load_continues_from_the_state_of_the_one_before_without_any_overlap(contacts: Customer):
    connector = _connector(contacts.dsn())
    cursor = connector.cursor("id", "int")
    first = Window(cursor)
    assert sum(batch.num_rows for batch in connector.read(first)) == 2
    contacts.run("INSERT INTO contacts VALUES (-1, 'late@example.org', now())")
    second = Window(cursor, "2", state=first.context.state)
    rows = {row["id"] for batch in connector.read(second) for row in batch.to_pylist()}
    assert {"-1", "2"} <= rows, "a transaction that is open elsewhere on the server may have more read again, never less"
    assert "late@" not in str(second.context.state)


def test_any_column_may_be_the_cursor_and_late_commits_have_ten_minutes():
    assert {name: (column.type, column.overlap) for name, column in PostgresIdentity.cursor_columns.items()} == {"*": (None, 600)}


def test_the_key_is_the_first_customary_column_that_the_table_has():
    assert PostgresIdentity.field_map.external_id == ("id", "external_id", "contact_id", "customer_id", "record_id", "uuid", "guid")


def test_the_connection_string_is_the_only_secret_and_is_shown_nowhere(contacts: Customer):
    connector = _connector("postgresql://u:canary-secret@127.0.0.1/db")
    assert [setting.name for setting in PostgresIdentity.settings() if setting.secret] == ["connection_string"]
    assert "canary-secret" not in repr(connector) + str(connector) + repr(connector.engine())
    assert all("canary-secret" not in step.message for step in connector.check())
