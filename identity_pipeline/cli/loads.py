"""`identity-pipeline loads`: the ledger."""

import click

from identity_pipeline.cli import output
from identity_pipeline.cli.completion import source_names
from identity_pipeline.core.balance import COUNTS
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.spelling import suggestion
from identity_pipeline.embedded.location import database_url
from identity_pipeline.store import listing

COLUMNS = (
    "source_name", "load_id", "run_id", "status", "started_at", "finished_at",
    *COUNTS,
    "cursor_before", "cursor_after", "error_code",
)  # fmt: skip
DETAILS = ("full_refresh", "error", "warnings")
"""What a line has no room for: columns of the JSON."""
_EXPENDABLE = (
    "run_id", "started_at", "cursor_before", "error_code", "filtered", "duplicates", "finished_at", "deleted", "unchanged",
    "cursor_after", "records_read",
)  # fmt: skip


@click.command()
@click.argument("name", required=False, shell_complete=source_names)
@click.option("-n", "limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@output.as_json_option
def loads(name: str | None, limit: int, *, as_json: bool) -> None:
    """Loads, newest first: of all sources, or of NAME.

    Of the newest load of each source the warnings are said, too. For each load:
    records_read = inserted + updated + unchanged + duplicates + quarantined + filtered.
    """
    found = listing.loads(database_url(), name, limit=limit)
    output.show(found, (*COLUMNS, *DETAILS) if as_json else COLUMNS, as_json=as_json, expendable=_EXPENDABLE)
    newest = {load["source_name"]: load["load_id"] for load in reversed(found)}
    for load in found:
        warnings = load["warnings"] if newest[load["source_name"]] == load["load_id"] else ()
        for message in (load["error"], *(f"warning: {each}" for each in warnings or ())):
            if message:
                output.say(f"{load['source_name']}: load {load['load_id']}: {message}")
    if not found:
        if name is not None:
            check_known(name)
        output.say(f"no loads of {name!r} yet" if name else "no loads yet")


def check_known(name: str) -> None:
    """Raise if no source is called so, now or ever."""
    from identity_pipeline.core import settings  # noqa: PLC0415
    from identity_pipeline.declarations import folder  # noqa: PLC0415 - with Dagster, and only for a name without loads

    known = {*listing.latest(database_url()), *folder.load(settings.sources_folder()).sources}
    if name not in known:
        raise ConfigurationError(f"no source is called {name!r}, and none was ever loaded under that name{suggestion(name, known)}")
