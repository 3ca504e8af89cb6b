"""`python -m identity_pipeline.demo`: load the three bundled sources once; `dev`: keep everything up, with the UI; `drop`: see a sensor."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from identity_pipeline.cli import services
from identity_pipeline.core import settings
from identity_pipeline.core.errors import PipelineError, TryLater
from identity_pipeline.demo.world import world

SOURCES = ("demo_newsletter", "demo_shop", "demo_hubspot")


def _say(message: str) -> None:
    click.echo(f"· {message}")


@click.group(invoke_without_command=True)
@click.pass_context
def demo(context: click.Context) -> None:
    """Load the three bundled sources through Dagster's daemon, queue and `dagster job launch`; print what came of it."""
    if context.invoked_subcommand is None:
        sys.exit(_guarded(_load))


@demo.command()
@click.option("--port", default=3000, show_default=True, help="Port of the web server, on 127.0.0.1.")
def dev(port: int) -> None:
    """The same services, with the daemon and the web server: Sources page and Dagster's UI."""
    sys.exit(_guarded(lambda: _dev(port)))


@demo.command()
def drop() -> None:
    """Put a file into a bucket; a sensor sees it and starts a load."""
    sys.exit(_guarded(_drop))


def _guarded(work):  # noqa: ANN001, ANN202 - a call without arguments that returns an exit status
    try:
        return work()
    except PipelineError as error:
        click.echo(str(error), err=True)
        return error.exit_status


def _dev(port: int) -> int:
    services.check_port("127.0.0.1", port)
    services.end_on_sigterm()
    url = services.database(_say)
    services.project()
    with world(url) as environment:
        os.environ.update(environment)
        import dagster as dg  # noqa: PLC0415 - after the environment is set

        from identity_pipeline.web import server  # noqa: PLC0415

        with dg.DagsterInstance.get() as instance, services.daemon(_say):
            server.serve(instance, "127.0.0.1", port, _say)
    return 0


def _drop() -> int:
    from identity_pipeline.demo import drop as dropping  # noqa: PLC0415 - few see it

    load = dropping.drop(_say)
    _show(services.database(), load["run_id"], [dropping.SOURCE], newest=True)
    return 0


def _load() -> int:
    started = time.monotonic()
    os.environ["IDENTITY_SOURCES"] = str(settings.PACKAGE / "sources")
    url = services.database(_say)
    folder = services.project()
    with world(url) as environment:
        os.environ.update(environment)
        with _launching(folder) as (run_id, launched), services.daemon(_say) as keep_daemon:
            ended = _followed(run_id, launched, keep_daemon)
    _show(url, ended.run_id)
    if ended.error:
        raise TryLater(f"the demo's run ended as {ended.status}: {ended.error}")
    click.echo(
        f"\nDone in {time.monotonic() - started:.0f} s. The identity database stays up: .venv/bin/identity-pipeline db run psql\n"
        "  Sources page and Dagster's UI:    make dev (it prints a link that signs you in)\n"
        "  what was quarantined and why:     .venv/bin/identity-pipeline quarantine list\n"
        "  a source of your own:             .venv/bin/identity-pipeline sources new csv_url my_contacts\n"
        "  stop the database:                .venv/bin/identity-pipeline db stop"
    )
    return 0


@contextmanager
def _launching(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`dagster job launch` at work, which takes as long as the daemon to come up; and the id of its run."""
    run_id = str(uuid.uuid4())
    command = ["job", "launch", "-w", "workspace.yaml", "-j", "ingest", "-o", ",".join(SOURCES), "--run-id", run_id]
    _say(f"dagster {' '.join(command)}")
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "dagster", *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield run_id, process
    finally:
        process.terminate()
        process.wait()


def _followed(run_id: str, launched: subprocess.Popen[str], keep_daemon: Callable[[], None]):  # noqa: ANN202 - Followed, imported late
    import dagster as dg  # noqa: PLC0415 - after the environment is set

    from identity_pipeline.orchestration.follow import follow  # noqa: PLC0415

    printed, _ = launched.communicate()
    if launched.returncode:
        raise TryLater(f"dagster job launch ended with {launched.returncode}:\n{printed[-2000:]}")
    with dg.DagsterInstance.get() as instance:
        return follow(instance, {"ingest": run_id}, say=lambda _, message: _say(message), every=lambda _: keep_daemon())[0]


def _show(url: str, run_id: str, sources: Sequence[str] = SOURCES, *, newest: bool = False) -> None:
    from identity_pipeline.cli.output import show  # noqa: PLC0415
    from identity_pipeline.core.balance import COUNTS  # noqa: PLC0415
    from identity_pipeline.store import listing  # noqa: PLC0415

    click.echo("\nThe balance of each load: records_read is the sum of the six after it")
    show(listing.loads(url, run_id=run_id), ("source_name", "status", *COUNTS, "cursor_after"))
    click.echo(f"\nThe {'newest' if newest else 'first'} rows of identity.records")
    show(
        _some_records(url, sources, "desc" if newest else "asc"),
        ("source_name", "external_id", "email", "email_verdict", "phone", "full_name", "city", "country"),
    )


def _some_records(url: str, sources: Sequence[str], order: str) -> list[dict[str, object]]:
    from identity_pipeline.store.database import connect  # noqa: PLC0415

    columns = ("source_name", "external_id", "email", "email_verdict", "phone", "full_name", "city", "country")
    with connect(url, doing="show some rows") as connection:
        rows = [
            row
            for name in sources
            for row in connection.execute(
                f"select {', '.join(columns)} from identity.records where source_name = %s order by external_id {order} limit 3",  # type: ignore[arg-type] - constants
                (name,),
            ).fetchall()
        ]
    return [dict(zip(columns, row, strict=True)) for row in rows]


if __name__ == "__main__":
    demo()
