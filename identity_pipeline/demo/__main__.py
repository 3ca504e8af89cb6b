"""`python -m identity_pipeline.demo`: load the three bundled sources once; with `dev`: keep everything up, with the UI."""

import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import requests

from identity_pipeline.cli import services
from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, PipelineError, TryLater
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
@click.option("--port", default=3000, show_default=True, help="Port of the UI, on 127.0.0.1.")
def dev(port: int) -> None:
    """The same services, and Dagster's UI and daemon in the foreground."""
    sys.exit(_guarded(lambda: _dev(port)))


def _guarded(work):  # noqa: ANN001, ANN202 - a call without arguments that returns an exit status
    try:
        return work()
    except PipelineError as error:
        click.echo(str(error), err=True)
        return error.exit_status


def _dev(port: int) -> int:
    _check_free(port)
    services.end_on_sigterm()
    url = services.database(_say)
    folder = services.project()
    with world(url) as environment:
        os.environ.update(environment)
        command = [sys.executable, "-m", "dagster", "dev", "-w", str(folder / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, cwd=folder, start_new_session=True)  # noqa: S603 - our own interpreter
        threading.Thread(target=_announce, args=(process, f"http://127.0.0.1:{port}"), daemon=True).start()
        try:
            return process.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            services.stop(process)
            services.forget_daemon()


def _announce(process: subprocess.Popen[bytes], address: str) -> None:
    """Say where the UI is, once it answers: it takes a while, and writes much meanwhile."""
    while process.poll() is None:
        try:
            requests.get(f"{address}/server_info", timeout=2).raise_for_status()
        except requests.RequestException:
            time.sleep(0.5)
        else:
            _say(f"open {address}/assets and press Materialize; Ctrl-C ends")
            return


def _check_free(port: int) -> None:
    """Raise if the UI could not have this port: `dagster dev` would go on without a UI."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the web server does: a port that was just left is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(
                f"port {port} of 127.0.0.1 cannot be had ({error.strerror}): end what uses it, or take another one: "
                f".venv/bin/python -m identity_pipeline.demo dev --port {port + 1}"
            ) from None


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
        f'\nDone in {time.monotonic() - started:.0f} s. The identity database stays up: psql "$(.venv/bin/identity-pipeline db url)"\n'
        "  the UI with these three assets:   make dev, then http://127.0.0.1:3000/assets\n"
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


def _show(url: str, run_id: str) -> None:
    from identity_pipeline.cli.output import show  # noqa: PLC0415
    from identity_pipeline.core.balance import COUNTS  # noqa: PLC0415
    from identity_pipeline.store import listing  # noqa: PLC0415

    click.echo("\nThe balance of each load: records_read is the sum of the six after it")
    show(listing.loads(url, run_id=run_id), ("source_name", "status", *COUNTS, "cursor_after"))
    click.echo("\nThe first rows of identity.records")
    show(
        _first_records(url),
        ("source_name", "external_id", "email", "email_verdict", "phone", "full_name", "city", "country"),
    )


def _first_records(url: str) -> list[dict[str, object]]:
    from identity_pipeline.store.database import connect  # noqa: PLC0415

    columns = ("source_name", "external_id", "email", "email_verdict", "phone", "full_name", "city", "country")
    with connect(url, doing="show the first rows") as connection:
        rows = [
            row
            for name in SOURCES
            for row in connection.execute(
                f"select {', '.join(columns)} from identity.records where source_name = %s order by external_id limit 3",  # type: ignore[arg-type] - constants
                (name,),
            ).fetchall()
        ]
    return [dict(zip(columns, row, strict=True)) for row in rows]


if __name__ == "__main__":
    demo()
