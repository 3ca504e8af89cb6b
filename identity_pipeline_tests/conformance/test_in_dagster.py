"""A source in Dagster: what it is called, what a run shows, and what nobody finds in the instance afterwards."""

import logging
import shutil
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import yaml
from psycopg import sql

from identity_pipeline.core.settings import PACKAGE
from identity_pipeline.orchestration.assets import JOB, definitions, run_config
from identity_pipeline.orchestration.ops import normalise_records
from identity_pipeline.orchestration.results import CHECKS
from identity_pipeline_tests.conformance.harness import Harness, Tools, contacts
from identity_pipeline_tests.conformance.loader import Heard, searched
from identity_pipeline_tests.servers.files import Authority

ALWAYS = {
    "records_read", "inserted", "updated", "unchanged", "duplicates", "quarantined", "filtered", "deleted", "dagster/row_count",
    "null_cursor", "bytes_read", "pages", "seconds_read", "seconds_merge", "load_id", "requests", "throttled_seconds", "balance",
}  # fmt: skip
CURSOR = {"cursor_column", "cursor_type", "cursor_after"}
RECORDS = {"identity.records", "identity.quarantine"}
"""The only tables that may hold something of a person."""


@dataclass(frozen=True)
class Ran:
    """One source of a harness after two runs that went well and one that could not."""

    harness: Harness
    name: str
    defs: dg.Definitions
    first: dg.ExecuteInProcessResult
    second: dg.ExecuteInProcessResult
    failed: dg.ExecuteInProcessResult
    said: list[str]
    tables: dict[str, str]
    files: dict[str, str]

    @property
    def asset(self) -> dg.AssetsDefinition:
        """The source's asset."""
        return self.defs.resolve_asset_graph().assets_def_for_key(dg.AssetKey([self.name]))


@pytest.fixture(scope="module")
def ran(
    harness_class: type[Harness],
    identity_database: str,
    postgres_url: str,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ran]:
    """The source after three runs of the job with Dagster's storage in Postgres."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(PACKAGE.parent / "dagster.yaml", home)
    heard = Heard()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for variable, value in {
            "IDENTITY_DATABASE_URL": identity_database, "IDENTITY_HOME": str(home), "IDENTITY_SOURCES": str(home),
            "IDENTITY_ALLOW_PRIVATE_HOSTS": "127.0.0.1", "SSL_CERT_FILE": str(authority.bundle),
        }.items():  # fmt: skip
            patch.setenv(variable, value)
        name = f"crm_{harness_class.source_type()}"
        harness = harness_class(Tools(postgres_url, authority, patch, stack))
        cursor = {"cursor_column": harness.cursor_column, "cursor_type": harness.cursor_type} if harness.cursor_column else {}
        declared = {"name": name, "source_type": harness.source_type(), "config": harness.config, "owners": ["team:crm"], **cursor}
        (home / "sources.yaml").write_text(yaml.safe_dump({"sources": [declared]}))
        (home / "dagster.yaml").rename(home / "dagster.yml")  # not one of the sources
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home), "dagster.yml"))
        for logger in (logging.getLogger(), logging.getLogger("dagster")):
            logger.addHandler(heard)
            stack.callback(logger.removeHandler, heard)
        defs = definitions()
        job = defs.resolve_job_def(JOB)

        def run(**choices: Any) -> dg.ExecuteInProcessResult:
            return job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey([name])],
                run_config=run_config(name, **choices),
                raise_on_error=False,
            )

        harness.show(contacts(5))
        first, second = run(), run(full_refresh=True)
        (harness.refuse_credential if harness.has("credential") else harness.refuse_permission)()
        failed = run()
        texts = {str(path): path.read_bytes().decode("latin-1") for path in home.rglob("*") if path.is_file()}
        yield Ran(harness, name, defs, first, second, failed, heard.lines, tables(identity_database), texts)


def tables(url: str) -> dict[str, str]:
    """All that stands in the database, table by table, packed values unpacked."""
    found = {}
    with psycopg.connect(url) as connection:
        names = connection.execute("select schemaname, tablename from pg_tables where schemaname in ('identity', 'dagster')").fetchall()
        for schema, table in names:
            rows = connection.execute(sql.SQL("select * from {}").format(sql.Identifier(schema, table))).fetchall()
            found[f"{schema}.{table}"] = "\n".join(unpacked(value) for row in rows for value in row if value is not None)
    return found


def unpacked(value: object) -> str:
    """The text of a value, which Dagster may have compressed."""
    if not isinstance(value, bytes | memoryview):
        return str(value)
    try:
        return zlib.decompress(bytes(value)).decode("latin-1")
    except zlib.error:
        return bytes(value).decode("latin-1")


def shown(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """The metadata of the one materialization of a run."""
    [event] = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_its_asset_is_named_grouped_and_described(ran: Ran) -> None:
    spec = ran.asset.get_asset_spec(dg.AssetKey([ran.name]))
    connector = ran.harness.connector()
    assert spec.group_name == connector.group
    assert spec.kinds == {connector.vendor, "postgres"}
    assert spec.tags["identity/source_type"] == ran.harness.source_type()
    assert list(spec.owners) == ["team:crm"]
    assert spec.description
    assert {"external_id", "email", "phone", "raw"} <= {c.name for c in spec.metadata["dagster/column_schema"].columns}
    assert set(ran.defs.resources or ()) >= {ran.name}
    assert isinstance((ran.defs.resources or {})[ran.name], connector)


def test_its_steps_have_their_names_and_pools(ran: Ran) -> None:
    steps = {event.step_key for event in ran.first.all_events if event.is_step_success}
    assert steps == {f"{ran.name}.read", f"{ran.name}.normalise_records[part_00000]", f"{ran.name}.commit"}
    graph = ran.asset.node_def
    assert isinstance(graph, dg.GraphDefinition)
    ops = {node.name: node.definition for node in graph.nodes}
    assert ops["normalise_records"] is normalise_records
    assert {name: getattr(op, "pool", None) for name, op in ops.items()} == {
        "read": f"source_{ran.name}", "normalise_records": None, "commit": None,
    }  # fmt: skip


def test_a_run_publishes_the_balance_and_the_mark(ran: Ran) -> None:
    assert ran.first.success
    first, second = shown(ran.first), shown(ran.second)
    has_cursor = ran.harness.has("cursor")
    assert first.keys() - {"warnings"} == ALWAYS | (CURSOR if has_cursor else set())
    assert second.keys() - {"warnings"} == ALWAYS | (CURSOR | {"cursor_before"} if has_cursor else set())
    assert (first["records_read"], first["inserted"], first["dagster/row_count"]) == (5, 5, 5)
    assert (second["inserted"], second["updated"], second["deleted"], second["dagster/row_count"]) == (0, 0, 0, 5)
    if has_cursor:
        assert (first["cursor_column"], first["cursor_type"]) == (ran.harness.cursor_column, ran.harness.cursor_type)
        assert second["cursor_before"] == second["cursor_after"] == first["cursor_after"]


def test_a_run_reports_every_check(ran: Ran) -> None:
    found = {check.check_name: check.passed for check in ran.first.get_asset_check_evaluations()}
    assert found.keys() == set(CHECKS)
    assert found["balance"]
    assert found["valid_identifier_share"]


def test_a_refused_credential_fails_the_read_at_once_and_says_why(ran: Ran) -> None:
    assert not ran.failed.success
    [event] = [event for event in ran.failed.all_events if event.is_step_failure]
    assert event.step_key == f"{ran.name}.read"
    failure = event.step_failure_data.user_failure_data
    assert failure is not None
    assert failure.metadata["a_retry_helps"].value is False
    assert len(failure.description or "") > 20
    assert not ran.failed.get_asset_materialization_events()


def test_no_secret_is_anywhere_in_the_instance(ran: Ran) -> None:
    assert {"dagster.event_logs", "dagster.runs", "dagster.snapshots", "identity.loads"} <= {t for t, text in ran.tables.items() if text}
    searched(ran.harness, [*ran.tables.values(), *ran.files.values(), *ran.said], personal=False)


def test_nothing_of_a_person_is_outside_the_records(ran: Ran) -> None:
    searched(ran.harness, [*(text for table, text in ran.tables.items() if table not in RECORDS), *ran.files.values(), *ran.said])
    assert "canary.person" in ran.tables["identity.records"]
    assert not [path for path in ran.files if Path(path).suffix == ".arrow"], "what was landed was not removed"
