"""`identity-pipeline quarantine`: records that could not be merged."""

import click

from identity_pipeline.cli import output
from identity_pipeline.cli.completion import source_names
from identity_pipeline.cli.lazy import LazyGroup
from identity_pipeline.cli.loads import check_known
from identity_pipeline.embedded.location import database_url
from identity_pipeline.store import quarantine as store

COLUMNS = (
    "quarantine_id", "source_name", "load_id", "external_id", "reason", "detail", "status", "seen", "first_seen_at", "last_seen_at",
)  # fmt: skip
_AT_ONCE = 10_000
_LAZY = {"replay": ("identity_pipeline.cli.replay:replay", "Try records again with the present mapping.")}


@click.group(cls=LazyGroup, lazy=_LAZY)
def quarantine() -> None:
    """Records that could not be merged, each with its reason. Nothing is lost: they wait here, whole.

    \b
    Examples:
      identity-pipeline quarantine list my_contacts --reason missing_id
      identity-pipeline quarantine show 17
      identity-pipeline quarantine replay --all my_contacts
    """  # noqa: D301 - click takes the backspace itself


@quarantine.command("list")
@click.argument("name", required=False, shell_complete=source_names)
@click.option("--reason", help="Only records with this reason, such as missing_id.")
@click.option("--status", type=click.Choice([*store.STATUSES, "all"]), default="open", show_default=True)
@click.option("-n", "limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many.")
@output.as_json_option
def list_(name: str | None, reason: str | None, status: str, limit: int, *, as_json: bool) -> None:
    """Records in quarantine, newest first: of all sources, or of NAME."""
    found = store.listing(database_url(), name, reason=reason, status=None if status == "all" else status, limit=limit + 1)
    output.show(found[:limit], COLUMNS, as_json=as_json, expendable=("first_seen_at", "load_id", "status", "seen", "last_seen_at"))
    if name is not None and not found:
        check_known(name)
    if len(found) > limit:
        output.say(f"there are more than {limit}: see them with -n")


@quarantine.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=int)
@output.as_json_option
def show(ids: tuple[int, ...], *, as_json: bool) -> None:
    """Records with all their raw fields. These are personal data: mind where you keep the output."""
    rows = store.records(database_url(), list(ids))
    if as_json:
        output.show(rows, (*COLUMNS, "resolved_at", "raw"), as_json=True)
        return
    for row in rows:
        fields = {name: row[name] for name in (*COLUMNS, "resolved_at")} | {f"raw.{name}": value for name, value in row["raw"].items()}
        output.show([{"field": name, "value": value} for name, value in fields.items()], ("field", "value"))


@quarantine.command()
@click.argument("ids", metavar="ID...", nargs=-1, type=int)
@click.option("--all", "source_name", metavar="NAME", shell_complete=source_names, help="All open records of this source.")
@click.option("--reason", help="Of --all only those with this reason, such as missing_id.")
def discard(ids: tuple[int, ...], source_name: str | None, reason: str | None) -> None:
    """Settle records as not wanted: those of the IDs, or --all of a source.

    They stay so when the source shows them again unchanged.
    """
    if bool(ids) == bool(source_name):
        raise click.UsageError("give ids, or --all NAME")
    if reason and not source_name:
        raise click.UsageError("--reason goes with --all NAME")
    url = database_url()
    if source_name:
        check_known(source_name)
        found = store.listing(url, source_name, reason=reason, status="open", limit=_AT_ONCE)
        ids = tuple(row["quarantine_id"] for row in found)
    output.say(f"discarded {store.discard(url, list(ids))}")
    if len(ids) == _AT_ONCE:
        output.say("there are more: repeat the command")
