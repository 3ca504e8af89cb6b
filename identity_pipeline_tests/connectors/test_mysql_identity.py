"""mysql_identity: its settings, its field map and the cursor it declares. What it reads is the SQL reader's promise."""

from collections.abc import Iterator

import pytest

from identity_pipeline.connectors.base import Secret
from identity_pipeline.connectors.mysql_identity import MysqlIdentity
from identity_pipeline.core.secret import Env, StoredToken
from identity_pipeline.core.window import Window
from identity_pipeline_tests.mysql_source import Customer, customer


@pytest.fixture
def contacts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Customer]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    with customer() as made:
        made.run(
            "CREATE TABLE contacts (id bigint PRIMARY KEY, email varchar(99), at datetime)",
            "INSERT INTO contacts VALUES (1, 'a@example.org', '2026-07-01 11:59'), (2, 'b@example.org', '2026-07-01 12:00')",
        )
        yield made


def _connector(url: str, table: str = "contacts", **settings) -> MysqlIdentity:
    secret = Secret.bound(Env("URL"), StoredToken(lambda: url))
    return MysqlIdentity(connection_string=secret, table=table, **settings)


def test_a_connector_reads_the_table_of_its_settings(contacts: Customer):
    connector = _connector(contacts.url(), "`contacts`", columns=["id"], cursor_timezone="Europe/Berlin", ca_certificate=contacts.server.ca)
    cursor = connector.cursor("at", "timestamp")
    rows = [row for batch in connector.read(Window(cursor, "2026-07-01T10:00:00Z")) for row in batch.to_pylist()]
    assert rows == [{"id": "2", "at": "2026-07-01T12:00:00"}]
    assert [step.ok for step in connector.check()] == [True] * 4


def test_any_column_may_be_the_cursor_and_late_commits_have_ten_minutes():
    assert {name: (column.type, column.overlap) for name, column in MysqlIdentity.cursor_columns.items()} == {"*": (None, 600)}


def test_the_connection_string_is_the_only_secret_and_is_shown_nowhere(contacts: Customer):
    connector = _connector("mysql://u:canary-secret@127.0.0.1/db")
    assert [setting.name for setting in MysqlIdentity.settings() if setting.secret] == ["connection_string"]
    assert "canary-secret" not in repr(connector) + str(connector) + repr(connector.engine())
    assert all("canary-secret" not in step.message for step in connector.check())
