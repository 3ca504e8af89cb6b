"""The command line ``identity-pipeline``.

Belongs here: arguments, what is printed, exit statuses. Does not belong here: SQL (``store``), how a
source is read or a record normalised. A module holds one command or one group of them and is
imported when it is used: Dagster only by the commands that need it.
"""

import errno
import gc
import logging
import os
import traceback
from typing import Any

import click

from identity_pipeline import __version__
from identity_pipeline.cli import output
from identity_pipeline.cli.lazy import LazyGroup
from identity_pipeline.core.errors import PipelineError, TargetUnavailable
from identity_pipeline.core.settings import COLLECT_AFTER

_HERE = "identity_pipeline.cli"
_COMMANDS = {
    "init": (f"{_HERE}.init:init", "Make a project folder: Dagster's files, a sources folder."),
    "ingest": (f"{_HERE}.ingest:ingest", "Load sources now and follow the runs to their balance."),
    "sources": (f"{_HERE}.sources:sources", "Declared sources and source types: list, check, preview, new."),
    "credentials": (f"{_HERE}.credentials:credentials", "The encrypted credential store."),
    "loads": (f"{_HERE}.loads:loads", "What was loaded, newest first, with its balance."),
    "quarantine": (f"{_HERE}.quarantine:quarantine", "Records that could not be merged: look, replay, discard."),
    "db": (f"{_HERE}.database:db", "The identity database: embedded server, address, migrations."),
    "serve": (f"{_HERE}.serve:serve", "The web server: Sources page, API and Dagster's UI behind one login."),
    "tokens": (f"{_HERE}.tokens:tokens", "API tokens of the web server."),
    "doctor": (f"{_HERE}.doctor:doctor", "Check everything that a load needs, with advice."),
}


class _Main(LazyGroup):
    """Where errors become messages and exit statuses."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PipelineError as error:
            _tell(error)
            ctx.exit(error.exit_status)
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(130)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:
            if os.environ.get("IDENTITY_DEBUG") == "1" or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            if _lost_connection(error):
                _tell(TargetUnavailable("the identity database stopped answering: nothing is lost, run the command again when it is back"))
                ctx.exit(TargetUnavailable.exit_status)
            # Drivers and libraries quote records and secrets in their messages: type and place are enough.
            frames = traceback.extract_tb(error.__traceback__)[-3:]
            where = " ← ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
            output.say(f"unexpected {type(error).__name__} at {where}: please report this; IDENTITY_DEBUG=1 shows all of it")
            ctx.exit(1)


def _lost_connection(error: Exception) -> bool:
    from identity_pipeline.cli.unreachable import is_lost_connection  # noqa: PLC0415 - only when something failed

    return is_lost_connection(error)


def _tell(error: PipelineError) -> None:
    from identity_pipeline.cli.unreachable import explained  # noqa: PLC0415 - only when something failed

    for line in explained(error):
        output.say(" ".join(line.split()))


@click.group(cls=_Main, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="identity-pipeline")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Show this program's log on standard error from this level on.",
)
def command(log_level: str | None) -> None:
    """Contacts and customers from 22 kinds of source in one Postgres identity table.

    Exit status: 0 done, 1 somebody must act, 2 wrong usage, 3 try again later.
    """
    # It warns of each rollback that a lost connection made impossible; what failed is reported all the same.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    if log_level:
        # Our own log only: libraries write addresses with their queries into theirs.
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("identity_pipeline").setLevel(log_level.upper())


def main() -> None:
    """Run the command line."""
    gc.set_threshold(COLLECT_AFTER)
    command(prog_name="identity-pipeline")
