"""bigquery_identity: its settings and the cursor it declares. What it reads is the SQL reader's promise."""

from collections.abc import Iterator

import pytest

from identity_pipeline.connectors.base import Secret
from identity_pipeline.connectors.bigquery_identity import BigqueryIdentity
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.secret import Env, StoredToken
from identity_pipeline.core.window import Window
from identity_pipeline_tests.servers.bigquery_api import PROJECT, BigQueryAPI


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryAPI]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    with BigQueryAPI() as api:
        yield api


def _secret(key: str) -> Secret:
    return Secret.bound(Env("KEY"), StoredToken(lambda: key))


def test_a_connector_reads_the_table_of_its_settings(api: BigQueryAPI):
    api.run(
        "CREATE SCHEMA crm",
        "CREATE TABLE crm.contacts (id bigint, email text, at_ timestamp)",
        "INSERT INTO crm.contacts VALUES (1, 'a@example.org', '2026-07-01 11:59'), (2, 'b@example.org', '2026-07-01 12:00')",
    )
    connector = BigqueryIdentity(
        project=PROJECT, table="contacts", dataset="crm", location="EU", service_account=_secret(api.account()), columns=["id"],
        cursor_timezone="Europe/Berlin", base_url=f"http://127.0.0.1:{api.port}",
    )  # fmt: skip
    cursor = connector.cursor("at_", "timestamp")
    rows = [row for batch in connector.read(Window(cursor, "2026-07-01T10:00:00Z")) for row in batch.to_pylist()]
    assert rows == [{"id": "2", "at_": "2026-07-01T12:00:00"}]
    assert api.locations == {"EU"}


def test_any_column_may_be_the_cursor_and_late_commits_have_an_hour():
    assert {name: (column.type, column.overlap) for name, column in BigqueryIdentity.cursor_columns.items()} == {"*": (None, 3600)}


@pytest.mark.parametrize("authentication", ["service_account", "application_default"])
def test_a_key_is_given_or_the_machine_signs_in_and_never_both(authentication):
    key = None if authentication == "service_account" else _secret("{}")
    connector = BigqueryIdentity(project=PROJECT, table="crm.contacts", service_account=key, authentication=authentication)
    with pytest.raises(ConfigurationError, match=r"^service_account: "):
        connector.engine()


def test_the_secret_is_marked_and_shown_nowhere():
    connector = BigqueryIdentity(project=PROJECT, table="crm.contacts", service_account=_secret("canary-secret"))
    assert [setting.name for setting in BigqueryIdentity.settings() if setting.secret] == ["service_account"]
    assert "canary-secret" not in repr(connector) + str(connector) + repr(connector.engine())
