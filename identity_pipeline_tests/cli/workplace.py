"""What a command finds: a sources folder, and a database with loads in it."""

import json
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from identity_pipeline.cli import command
from identity_pipeline.core.text import table_of
from identity_pipeline.declarations.source import Source
from identity_pipeline.loading.spec import rules
from identity_pipeline.store import ledger
from identity_pipeline.store.landing import LandedPart, Part
from identity_pipeline.store.ledger import ReadSummary
from identity_pipeline.store.merge import merge_part


def run(*arguments: str, given: str | None = None) -> Result:
    """Run `identity-pipeline` with these arguments and ``given`` on standard input."""
    return CliRunner().invoke(command, arguments, input=given, prog_name="identity-pipeline")


def rows(*arguments: str) -> list[dict[str, Any]]:
    """What a listing prints with --json."""
    return json.loads(run(*arguments, "--json").stdout)


def table(name: str = "crm", **declared: Any) -> dict[str, Any]:
    """A declaration of a source that reads the table ``public.<name>`` of the database in CRM_DSN."""
    config = {"connection_string": {"env": "CRM_DSN"}, "table": name}
    return {"name": name, "source_type": "postgres_identity", "config": config} | declared


def declare(folder: Path, *sources: dict[str, Any]) -> None:
    """Write ``sources`` as the only file of ``folder``."""
    folder.mkdir(exist_ok=True)
    (folder / "all.yaml").write_text(yaml.safe_dump({"sources": list(sources)}))


def load(url: str, declared: dict[str, Any], *records: dict[str, Any], run_id: str = "run-1", mark: str | None = None) -> dict[str, Any]:
    """Load ``records`` as a run would; the load's row of the ledger."""
    source = Source.model_validate(declared)
    spec = source.load_spec(source.resource())
    before = ledger.state(url, source.name).mark
    started = ledger.open_load(url, source.name, source.source_type, run_id, before=before, wait=0)
    part = Part(0, 0)
    counts = merge_part(url, started, part, [table_of([record]) for record in records], rules(spec))
    summary = ReadSummary(
        parts=[LandedPart(part, counts.records)],
        records_read=counts.records,
        cursor_column=source.cursor_column,
        cursor_type=spec.cursor and spec.cursor.type,
        candidate=mark,
    )
    return ledger.commit(url, started, summary)
