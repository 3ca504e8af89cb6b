"""What a command finds: a sources folder, and a database with loads in it."""

import json
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from identity_pipeline.cli import command
from identity_pipeline.core.text import cast_all_utf8, frame, to_table
from identity_pipeline.orchestration.ops import part_values, rules
from identity_pipeline.orchestration.sources import Source
from identity_pipeline.store import ledger
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
    """Load ``records`` as a run would; the load's line of the ledger."""
    source = Source.model_validate(declared)
    rule = rules(part_values(source, source.resource().cursor_reading()))
    started = ledger.open_load(url, source.name, source.source_type, run_id, before=ledger.mark(url, source.name), wait=0)
    batches = [to_table(cast_all_utf8(frame([record]))) for record in records]
    counts = merge_part(url, started, 0, batches, rule)
    kind = source.cursor[0] if source.cursor else None
    summary = ReadSummary(
        parts=[counts.records], records_read=counts.records, cursor_column=source.cursor_column, cursor_type=kind, candidate=mark
    )  # fmt: skip
    return ledger.commit(url, started, summary)
