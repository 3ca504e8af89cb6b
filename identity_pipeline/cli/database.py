"""`identity-pipeline db`: the embedded server, the address, the migrations."""

import os
import shutil
import subprocess

import click
from psycopg.pq import Conninfo

from identity_pipeline.cli import output
from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, PipelineError
from identity_pipeline.embedded import server as embedded
from identity_pipeline.embedded.binaries import packaged
from identity_pipeline.embedded.location import database_url, plain_url
from identity_pipeline.store.migrate import migrate, revisions

STATUS = ("server", "reachable", "version", "schema", "needed")


@click.group()
def db() -> None:
    """The identity database: IDENTITY_DATABASE_URL, or an embedded PostgreSQL under IDENTITY_HOME."""


@db.command()
@click.option("--port", type=click.IntRange(1, 65_535), help="Move the server to this port; it is remembered.")
def start(port: int | None) -> None:
    """Start the embedded server and migrate it. Nothing happens if it runs and is up to date."""
    url = embedded.start(port=port, progress=output.say)
    migrate(url)
    output.say(f"the embedded server runs on {url.rpartition('@')[2]}; its address with the password: identity-pipeline db url")
    if settings.database_url() is not None:
        output.say("IDENTITY_DATABASE_URL is set: loads and listings use that database, not this one")


@db.command()
def stop() -> None:
    """Stop the embedded server. Open transactions are rolled back."""
    output.say("stopped" if embedded.stop() else "it was not running")


@db.command()
def url() -> None:
    """Print the plain address of the identity database. It holds the password."""
    click.echo(plain_url())


@db.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(program: str, arguments: tuple[str, ...]) -> None:
    """Run psql, pg_dump, pg_restore or another program of PostgreSQL against the identity database.

    It is one of the embedded server's version where that is installed, else one of this machine. It gets the
    address and the password by its environment.

    \b
    Examples:
      identity-pipeline db run psql
      identity-pipeline db run psql -c 'select count(*) from identity.records'
      identity-pipeline db run pg_dump -Fc -f identity.dump
    """  # noqa: D301 - click takes the backspace itself
    try:
        folder = os.fspath(packaged())
    except ConfigurationError:
        folder = ""
    found = shutil.which(program, path=folder) or shutil.which(program)
    if found is None or "/" in program:
        raise ConfigurationError(f"no program of PostgreSQL is called {program[:60]!r} here: install PostgreSQL's client programs")
    address = {each.envvar.decode(): each.val.decode() for each in Conninfo.parse(database_url().encode()) if each.envvar and each.val}
    raise SystemExit(subprocess.run([found, *arguments], env=os.environ | address, check=False).returncode)  # noqa: S603 - as asked for


@db.command("migrate")
def migrate_() -> None:
    """Bring the schema to what this version needs. Repeatable; nothing is ever dropped."""
    migrate(database_url())
    output.say("the schema is up to date")


@db.command()
@output.as_json_option
def status(*, as_json: bool) -> None:
    """Where the database is, whether it answers, and its schema. Exit status 1: somebody must act."""
    server = "IDENTITY_DATABASE_URL" if settings.database_url() else "embedded"
    try:
        found = revisions(database_url())
    except PipelineError:
        output.show([{"server": server, "reachable": False}], STATUS, as_json=as_json)
        raise
    line = {"server": server, "reachable": True, "version": found.server, "schema": found.current, "needed": found.head}
    output.show([line], STATUS, as_json=as_json)
    if found.faults:
        raise ConfigurationError(found.faults)
