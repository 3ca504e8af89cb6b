"""`identity-pipeline ingest`: load sources, here or through the queue, and end with the balance."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from identity_pipeline.cli import services
from identity_pipeline.cli.completion import source_names
from identity_pipeline.core import settings
from identity_pipeline.core.balance import COUNTS
from identity_pipeline.core.errors import ConfigurationError, PipelineError


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...", shell_complete=source_names)
@click.option("--all", "everything", is_flag=True, help="Every declared source.")
@click.option("--full", is_flag=True, help="Full refresh: read everything, mark as deleted what the source no longer has.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many records of each source; the mark stays where it is.")
@click.option("--cursor-after", metavar="VALUE", help="Read from this cursor value on, instead of from the mark.")
@click.option("--force", is_flag=True, help="Ask a source although it wants to be left alone for a while.")
@click.option("--queue", is_flag=True, help="Through Dagster's queue and daemon, in place of this process.")
@click.option("--no-wait", is_flag=True, help="Print the run ids and return; with --queue, which it implies.")
@click.option("--dry-run", "dry", is_flag=True, help="Read and compare only: show what would be inserted, updated, quarantined.")
@click.option("--json", "as_json", is_flag=True, help="End with the loads as JSON on standard output.")
def ingest(names: tuple[str, ...], *, everything: bool, queue: bool, no_wait: bool, dry: bool, as_json: bool, **choices: Any) -> None:
    """Load sources now, and show the balance.

    Each is a run of the job `ingest` that the UI shows as any other, in a process of this command's,
    several at once. With --queue Dagster's daemon runs them; one is started if there is none.
    Starts the embedded database if no other is set. Exit status: 0 done, 1 somebody must act, 3 try
    again later.

    \b
    Examples:
      identity-pipeline ingest my_contacts
      identity-pipeline ingest --all --json
      identity-pipeline ingest my_contacts --full
      identity-pipeline ingest my_contacts --dry-run
      identity-pipeline ingest my_contacts --cursor-after 2026-01-01T00:00:00Z
    """  # noqa: D301 - click takes the backspace itself
    if bool(names) == everything:
        raise click.UsageError("name the sources or say --all, not both" if names else "name the sources, or say --all")
    if dry and (queue or no_wait):
        raise click.UsageError("--dry-run loads nothing, so that there is nothing to queue")

    from identity_pipeline.cli.connection import declarations  # noqa: PLC0415 - a second, for Dagster

    declared = declarations()
    wanted = list(declared.sources) if everything else [declared.source(name).name for name in dict.fromkeys(names)]
    queue = queue or no_wait
    services.database(_say)
    folder = services.project()

    if everything:
        for problem in declared.problems:
            _say(f"not loaded: {problem}")
    unset = _unset(declared, wanted, only_those=not everything, by_daemon=queue)
    wanted = [name for name in wanted if name not in unset]
    if not wanted:
        raise ConfigurationError(
            f"no source can be loaded from {settings.sources_folder()}: declare one there, or set IDENTITY_SOURCES to another folder"
        )
    config = {
        "full_refresh": choices["full"],
        "limit": choices["limit"],
        "cursor_after": choices["cursor_after"],
        "force": choices["force"],
    }
    if dry:
        sys.exit(_dry(wanted, config, as_json=as_json))
    if queue:
        ended = _queued(folder, wanted, config, wait=not no_wait)
        if ended is None:
            return
    else:
        ended = _here(folder, [declared.source(name) for name in wanted], config)
    sys.exit(_finish(ended, declared.sources, as_json=as_json, broken=everything and bool(declared.problems or unset)))


def _dry(names: list[str], config: dict[str, Any], *, as_json: bool) -> int:
    """Show what loads would do. 1 or 3 if one of the sources cannot be read."""
    import dagster as dg  # noqa: PLC0415 - a second, for the published marks

    from identity_pipeline.cli.connection import open_source  # noqa: PLC0415
    from identity_pipeline.cli.output import show  # noqa: PLC0415
    from identity_pipeline.loading.dry_run import dry_run  # noqa: PLC0415
    from identity_pipeline.loading.spec import RunOptions  # noqa: PLC0415
    from identity_pipeline.orchestration import marks  # noqa: PLC0415

    url, found, refused, status = services.database(_say), list[Any](), list[dict[str, str]](), 0
    options = RunOptions(**config)
    with dg.DagsterInstance.get() as instance:
        for name in names:
            try:
                source = open_source(name)
                with source.redacting():
                    published = marks.published(instance, url, name)
                    found.append(dry_run(source.spec, source.connector, url, options=options, published=published, log=_say))
            except PipelineError as error:
                _say(_named(name, str(error)))
                refused.append({"source_name": name, "error_code": error.code, "error": str(error)})
                status = 1 if status == 1 else error.exit_status
    columns = ("source_name", "window", *(count for count in COUNTS if count != "deleted"))
    lines = [vars(one) for one in found] + (refused if as_json else [])
    show(lines, (*columns, "reasons", "changed_fields", "error_code", "error") if as_json else columns, as_json=as_json)
    for one in found:
        if one.reasons:
            _say(f"{one.source_name}: quarantine: {_counted(one.reasons)}")
        if one.changed_fields:
            _say(f"{one.source_name}: what changed, in {one.sampled} of the updated records: {_counted(one.changed_fields)}")
    _say("nothing was written")
    return status


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common(10))


def _here(folder: Path, sources: list[Any], config: dict[str, Any]) -> list[Any]:
    """Load the sources in processes of this one."""
    from identity_pipeline.orchestration import direct  # noqa: PLC0415 - Dagster

    services.end_on_sigterm()
    how = direct.How(folder / "workspace.yaml", config, settings.home() / "logs" / "ingest.log")
    with _interruptible(), _shown() as (say, every):
        return direct.run_all(sources, how, say=say, every=every)


def _queued(folder: Path, names: list[str], config: dict[str, Any], *, wait: bool) -> list[Any] | None:
    """Enqueue the loads and follow them; None if nobody waits for them."""
    import dagster as dg  # noqa: PLC0415 - a second

    from identity_pipeline.orchestration import launch  # noqa: PLC0415
    from identity_pipeline.orchestration.follow import follow  # noqa: PLC0415

    with dg.DagsterInstance.get() as instance:
        if not wait:
            for name, run_id in launch.launch(instance, folder / "workspace.yaml", names, config).items():
                click.echo(f"{name} {run_id}")
            if not services.daemon_alive():
                _say("no daemon is running: the runs wait in the queue until one is (`identity-pipeline serve` brings one)")
            return None
        with _interruptible(), services.daemon(_say) as keep_daemon, _shown() as (say, show):
            runs = launch.launch(instance, folder / "workspace.yaml", names, config)
            for name, run_id in runs.items():
                say(name, f"run {run_id}, waiting in the queue")

            def every(followed: list[Any]) -> None:
                show(followed)
                keep_daemon()

            return follow(instance, runs, say=say, every=every)


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        _say("interrupted: nothing is lost; the marks are where they were, and the next load begins there")
        raise


def _unset(declared: Any, wanted: list[str], *, only_those: bool, by_daemon: bool) -> set[str]:
    """The sources that name an environment variable which is not set, reported; ``only_those`` are wanted: raise.

    A daemon that runs already has an environment of its own, which may hold it.
    """
    from identity_pipeline.cli.connection import missing  # noqa: PLC0415

    faults = {name: found for name in wanted if (found := list(missing(declared.sources[name])))}
    said = [fault for found in faults.values() for fault in found]
    if faults and by_daemon and services.daemon_alive():
        for fault in said:
            _say(f"{fault}, unless the daemon that is running has it")
        return set()
    if faults and only_those:
        raise ConfigurationError("; ".join(said))
    for fault in said:
        _say(f"not loaded: {fault}")
    return set(faults)


def _say(message: str) -> None:
    click.echo(message, err=True)


@contextmanager
def _shown() -> Iterator[tuple[Callable[[str, str], None], Callable[[list[Any]], None]]]:
    """How loads are shown as they go: a table that moves on a terminal, a line for each message elsewhere."""
    if not sys.stderr.isatty():
        yield (lambda name, message: _say(f"{name}: {message}")), (lambda _: None)
        return

    from rich.console import Console  # noqa: PLC0415 - only on a terminal
    from rich.live import Live  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    # no thread of its own, which a fork would leave holding its lock
    with Live(console=Console(stderr=True), auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:

        def show(followed: list[Any]) -> None:
            table = Table("source", "status", "last message", box=None)
            for one in followed:
                table.add_row(one.source_name, one.status.lower(), one.error or one.message)
            live.update(table, refresh=True)

        yield (lambda _name, _message: None), show


def _named(name: str, message: str) -> str:
    """The message with the source's name before it, once."""
    return message if message.startswith(f"{name}: ") else f"{name}: {message}"


def _too_many(line: dict[str, Any], sources: dict[str, Any]) -> str | None:
    """What to say of a load that put more into quarantine than its source allows."""
    allowed, read = sources[line["source_name"]].max_quarantined_share, line.get("records_read") or 0
    if not read or line["quarantined"] / read <= allowed:
        return None
    return (
        f"{line['quarantined']:,} of {read:,} records are in quarantine, more than max_quarantined_share ({allowed:.0%}): "
        f"`identity-pipeline quarantine list {line['source_name']}` says why"
    )


def _finish(ended: list[Any], sources: dict[str, Any], *, as_json: bool, broken: bool) -> int:
    from identity_pipeline.cli.loads import DETAILS  # noqa: PLC0415
    from identity_pipeline.cli.output import show  # noqa: PLC0415
    from identity_pipeline.embedded.location import database_url  # noqa: PLC0415
    from identity_pipeline.store import listing  # noqa: PLC0415

    url = database_url()
    loads = {one.run_id: listing.loads(url, run_id=one.run_id) for one in ended}
    lines = [line for one in ended for line in loads[one.run_id]]
    columns = ("source_name", "load_id", "status", *COUNTS, "cursor_after")
    if as_json:  # a run that ended before it opened a load has no line in the ledger
        lines += [
            {"source_name": one.source_name, "run_id": one.run_id, "status": "failed", "error": one.error}
            for one in ended
            if one.error and not loads[one.run_id]
        ]
        columns = ("source_name", "load_id", "run_id", "status", *COUNTS, "cursor_before", "cursor_after", "error_code", *DETAILS)
    show(lines, columns, as_json=as_json)
    for line in lines:
        if (message := _too_many(line, sources)) is not None:
            _say(_named(line["source_name"], message))
        # elsewhere than on a terminal, whose table has room for one message, they were said as they came
        for warning in (line.get("warnings") or ()) if sys.stderr.isatty() else ():
            _say(_named(line["source_name"], warning))
    for one in ended:
        if one.error:
            _say(_named(one.source_name, one.error))
    failed = [one for one in ended if one.error]
    if any(not one.retryable for one in failed) or broken:
        return 1
    return 3 if failed else 0
