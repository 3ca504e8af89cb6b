"""`identity-pipeline quarantine replay`: apart from its group, because a source's mapping needs Dagster."""

from collections import defaultdict
from dataclasses import asdict

import click

from identity_pipeline.cli import output
from identity_pipeline.cli.connection import declarations
from identity_pipeline.embedded.location import database_url
from identity_pipeline.operations.replay import replayed
from identity_pipeline.store import quarantine as store

COLUMNS = ("source_name", "load_id", "replayed", "still_open", "older")


@click.command()
@click.argument("ids", metavar="[ID...]", nargs=-1, type=int)
@click.option("--all", "name", metavar="NAME", help="All open records of source NAME.")
@output.as_json_option
def replay(ids: tuple[int, ...], name: str | None, *, as_json: bool) -> None:
    """Try records again with the present mapping and merge those that pass now.

    Each source's records go as one load with its own balance; the mark stays where it is. Records
    that fail again stay open with the new reason, and the exit status is 1. `older`: a newer version
    of the record was loaded meanwhile, so it is settled and not merged.
    """
    if bool(ids) == bool(name):
        raise click.UsageError("name records by their ids, or a source by --all")
    url = database_url()
    wanted: dict[str, list[int] | None] = {}
    if name:
        wanted[name] = None
    else:
        by_source = defaultdict(list)
        for row in store.still_open(url, list(ids)):
            by_source[row["source_name"]].append(row["quarantine_id"])
        wanted |= by_source
    declared = declarations()
    sources = {each: declared.source(each) for each in wanted}  # before the first is replayed
    if name and not store.listing(url, name, status="open", limit=1):
        output.say(f"{name}: nothing in quarantine is open")
        return
    done = [asdict(replayed(source, url, wanted[each], output.say)) for each, source in sources.items()]
    output.show(done, COLUMNS, as_json=as_json)
    if any(row["still_open"] for row in done):
        output.say("what is still open: identity-pipeline quarantine list")
        raise SystemExit(1)
