"""snowflake_identity: its settings, its field map and the cursor it declares. What it reads is the SQL reader's promise."""

from collections.abc import Iterator

import pytest

from identity_pipeline.connectors.base import Secret
from identity_pipeline.connectors.snowflake_identity import SnowflakeIdentity
from identity_pipeline.core.secret import Env, StoredToken
from identity_pipeline.core.window import Window
from identity_pipeline_tests.snowflake_source import Customer, customer


@pytest.fixture
def contacts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Customer]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    with customer() as made:
        made.run(
            "CREATE TABLE contacts (id int, email text, at_ timestamp_ntz)",
            "INSERT INTO contacts VALUES (1, 'a@example.org', '2026-07-01 11:59'), (2, 'b@example.org', '2026-07-01 12:00')",
        )
        yield made


def _connector(credential: str, **settings) -> SnowflakeIdentity:
    secret = Secret.bound(Env("CREDENTIAL"), StoredToken(lambda: credential))
    return SnowflakeIdentity(account="myorg-shop", user="ADMINISTRATOR", credential=secret, table="contacts", **settings)


def test_a_connector_reads_the_table_of_its_settings(contacts: Customer):
    connector = _connector(
        contacts.account.password, authentication="password", database="crm", columns=["ID"], cursor_timezone="Europe/Berlin",
        base_url=f"http://127.0.0.1:{contacts.account.port}",
    )  # fmt: skip
    cursor = connector.cursor("AT_", "timestamp")
    rows = [row for batch in connector.read(Window(cursor, "2026-07-01T10:00:00Z")) for row in batch.to_pylist()]
    assert rows == [{"ID": "2", "AT_": "2026-07-01T12:00:00"}]


def test_any_column_may_be_the_cursor_and_late_commits_have_an_hour():
    assert {name: (column.type, column.overlap) for name, column in SnowflakeIdentity.cursor_columns.items()} == {"*": (None, 3600)}


def test_columns_in_capitals_are_known_by_their_names():
    assert {"ID", "id"} <= set(SnowflakeIdentity.field_map.external_id)
    assert {"EMAIL", "email"} <= set(SnowflakeIdentity.field_map.email)


def test_the_secrets_are_marked_and_shown_nowhere():
    connector = _connector("canary-secret")
    assert [setting.name for setting in SnowflakeIdentity.settings() if setting.secret] == ["credential", "passphrase"]
    assert "canary-secret" not in repr(connector) + str(connector) + repr(connector.engine())
