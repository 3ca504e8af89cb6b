"""`identity-pipeline sources`: what is declared, what can be declared, and whether it works."""

from typing import Any

import click

from identity_pipeline import connectors
from identity_pipeline.cli import output
from identity_pipeline.cli.completion import source_names
from identity_pipeline.cli.connection import declarations, open_source
from identity_pipeline.cli.preview import preview
from identity_pipeline.cli.template import new
from identity_pipeline.cli.unreachable import explained
from identity_pipeline.core import settings
from identity_pipeline.core.errors import PipelineError, TargetUnavailable
from identity_pipeline.declarations.schema import json_schema
from identity_pipeline.declarations.source import FILL_IN
from identity_pipeline.embedded.location import database_url
from identity_pipeline.operations import drafts, overview
from identity_pipeline.store import listing
from identity_pipeline.store.forget import forget

LISTED = (
    "source_name", "source_type", "declared", "last_load", "last_status", "stale", "inserted", "updated", "row_count", "cursor_after",
    "state_fingerprint", "state_stored_at", "schedule", "error",
)  # fmt: skip
_EXPENDABLE = ("state_stored_at", "state_fingerprint", "row_count", "stale", "schedule", "updated", "inserted", "source_type", "last_load")
TYPES = ("source_type", "group", "vendor", "available", "description", "cursor_columns", "page")
SETTINGS = ("name", "type", "required", "secret", "default", "help")
CURSORS = ("cursor_column", "cursor_type", "overlap", "filtered_by")
VALIDATED = ("source_name", "declared", "file", "line", "message")
STEPS = ("step", "outcome", "message")


@click.group()
def sources() -> None:
    """Sources: the YAML files of IDENTITY_SOURCES, and the 22 source types.

    \b
    Examples:
      identity-pipeline sources types hubspot_contacts
      identity-pipeline sources new csv_url my_contacts
      identity-pipeline sources check my_contacts
      identity-pipeline sources preview my_contacts -n 5
      identity-pipeline sources delete my_contacts
      identity-pipeline sources validate
    """  # noqa: D301 - click takes the backspace itself


sources.add_command(preview)
sources.add_command(new)


@sources.command("list")
@output.as_json_option
def list_(*, as_json: bool) -> None:
    """Declared sources, each with its last load and its mark.

    `declared` is `ok`, or `broken` for a declaration that cannot be used, with its file, line and fix
    under `error`. `last_status` is how the last load ended: running, committed, failed or superseded.
    Exit status 3: the database did not answer, so that loads and marks are missing.
    """
    declared, unavailable = declarations(), None
    try:
        latest = listing.latest(database_url())
    except PipelineError as error:
        unavailable = error if isinstance(error, TargetUnavailable) else None
        output.say(f"without last loads and marks: {': '.join(explained(error))}")
        latest = {}
    rows = [overview.listed(source, latest.get(source.name, {})) for source in declared.sources.values()]
    rows += [overview.broken(problem) for problem in declared.problems]
    output.show(sorted(rows, key=lambda row: row["source_name"] or ""), LISTED, as_json=as_json, expendable=_EXPENDABLE)
    if not rows:
        folder = settings.sources_folder()
        output.say(f"no source is declared in {folder}: `identity-pipeline sources new SOURCE_TYPE NAME` writes a file to fill in")
    if unavailable:
        raise SystemExit(unavailable.exit_status)


@sources.command()
@click.argument("source_type", required=False)
@output.as_json_option
def types(source_type: str | None, *, as_json: bool) -> None:
    """The source types, or the settings and cursors of one SOURCE_TYPE."""
    names = [source_type] if source_type else overview.source_types()
    if source_type:
        _known(source_type)
    rows = [overview.source_type(name) for name in names]
    if as_json:
        click.echo(output.to_json(rows))
    elif source_type and rows[0]["available"]:
        click.echo(f"{source_type}: {rows[0]['description']}\n")
        output.show(rows[0]["settings"], SETTINGS)
        click.echo()
        output.show(rows[0]["cursor_columns"], CURSORS)
        click.echo(f"\nall about it: {rows[0]['page']}")
        if not rows[0]["cursor_columns"]:
            output.say("it has no cursor: every load reads everything")
    else:
        output.show(
            [row | {"cursor_columns": [each["cursor_column"] for each in row["cursor_columns"]]} for row in rows],
            TYPES,
            expendable=("page", "vendor", "group"),
        )


def _known(source_type: str) -> None:
    if source_type not in {*connectors.SOURCE_TYPES, *connectors.modules()}:
        raise click.BadParameter(f"no source type is called {source_type!r}; `identity-pipeline sources types` lists them")


@sources.command()
@click.argument("name", shell_complete=source_names)
@output.as_json_option
def check(name: str, *, as_json: bool) -> None:
    """Test the connection of source NAME, step by step. Nothing is loaded.

    Exit status 1 when a step fails; its message says what to do.
    """
    source = open_source(name)
    steps = []
    with source.redacting():
        for step, outcome, message in overview.checked(source):
            steps.append({"step": step, "outcome": outcome, "message": source.redactor.redact(message)})
            if not as_json:
                click.echo(f"{outcome:7}  {step:12}  {output.visible(steps[-1]['message'])}")
    if as_json:
        output.show(steps, STEPS, as_json=True)
    if any(step["outcome"] == "failed" for step in steps):
        raise SystemExit(1)


@sources.command()
@click.argument("name", shell_complete=source_names)
@click.option("--with-records", is_flag=True, help="Delete its records, loads, mark and quarantine from the identity database, too.")
@click.option("--yes", is_flag=True, help="Do not ask before records are deleted.")
def delete(name: str, *, with_records: bool, yes: bool) -> None:
    """Take source NAME out of its file. What was loaded of it stays, unless --with-records says otherwise."""
    folder, declared = settings.sources_folder(), declarations()
    stands = name in declared.sources or any(problem.name == name for problem in declared.problems)
    held = listing.latest(database_url()) if with_records else {}
    if not stands and name not in held:
        declared.source(name)  # says which names there are
    if name in held and not yes and not click.confirm(f"Delete the {held[name]['row_count']:,} records of {name} for good?", err=True):
        output.say("nothing was deleted")
        raise SystemExit(1)
    if name in held:
        output.say(f"deleted {forget(database_url(), name):,} records of {name}, and its loads, mark and quarantine")
    if stands:
        removed = drafts.removal(folder, name)
        removed.write(removed.seen)
        output.say(f"took {name} out of {removed.path.name}; processes that run notice it with their next reload")


@sources.command()
@output.as_json_option
def validate(*, as_json: bool) -> None:
    """Check every declaration without a connection, a database or a secret: for CI.

    Exit status 1 if one of them cannot be used.
    """
    declared = declarations()
    rows: list[dict[str, Any]] = [
        {"source_name": name, "declared": "broken", "file": declared.files[name], "message": f"config.{unfilled[0]}: is still {FILL_IN}"}
        if (unfilled := [setting for setting, value in source.config.items() if FILL_IN in (value if isinstance(value, list) else [value])])
        else {"source_name": name, "declared": "ok"}
        for name, source in declared.sources.items()
    ]
    rows += [{"source_name": p.name, "declared": "broken", "file": p.file, "line": p.line, "message": p.message} for p in declared.problems]
    output.show(rows, VALIDATED, as_json=as_json)
    if not rows:
        output.say(f"no source is declared in {settings.sources_folder()}")
    if any(row["declared"] == "broken" for row in rows):
        raise SystemExit(1)


@sources.command()
def schema() -> None:
    """Print the JSON Schema of a sources file, for editors."""
    click.echo(output.to_json(json_schema()))
