"""`identity-pipeline doctor`: everything that a load needs, checked one by one."""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import click
import dagster as dg

from identity_pipeline.cli import output, services
from identity_pipeline.cli.connection import declarations, missing
from identity_pipeline.cli.unreachable import explained
from identity_pipeline.core import settings
from identity_pipeline.core.errors import PipelineError, TargetUnavailable
from identity_pipeline.core.secret import Credential
from identity_pipeline.credentials import keyring, vault
from identity_pipeline.declarations import folder as folders
from identity_pipeline.declarations.source import Source
from identity_pipeline.embedded.location import database_url
from identity_pipeline.orchestration import assets
from identity_pipeline.orchestration.health import GRACE
from identity_pipeline.store import lease, listing
from identity_pipeline.store.landing import Landing, make_folder
from identity_pipeline.store.migrate import revisions

COLUMNS = ("check", "outcome", "message")
_FREE_BYTES = 2**30
_CLOCKS_DIFFER = timedelta(hours=1)
_PYTHON = ((3, 11), (3, 14))


class Finding(NamedTuple):
    """What one check found: ``ok``, ``warning`` (nobody must act now), ``failed`` or ``skipped``, and the advice."""

    outcome: str
    message: str
    exit_status: int = 1
    """The command's if this failed."""


Findings = Iterator[Finding]


@click.command()
@output.as_json_option
def doctor(*, as_json: bool) -> None:
    """Check everything that a load needs, and say what to do about what is wrong.

    Exit status 1 if a check failed, 3 if it is only that the database does not answer; a warning alone does not count.
    """
    rows, statuses = [], set()
    for name, check in CHECKS.items():
        unanswered = name in NEED_DATABASE and any(row["check"] == "database" and row["outcome"] == "failed" for row in rows)
        findings = [Finding("skipped", "needs the database")] if unanswered else _found(check)
        rows += [{"check": name, "outcome": finding.outcome, "message": finding.message} for finding in findings]
        statuses |= {finding.exit_status for finding in findings if finding.outcome == "failed"}
    output.show(rows, COLUMNS, as_json=as_json)
    if statuses:
        raise SystemExit(min(statuses))


def _found(check: Callable[[], Findings]) -> list[Finding]:
    found = []
    try:
        found += check()
    except PipelineError as error:
        found.append(Finding("failed", str(error)))
    except Exception as error:  # noqa: BLE001 - one check that breaks must not hide what the others say
        found.append(Finding("failed", f"could not be checked ({type(error).__name__})"))
    return found


def _python() -> Findings:
    oldest, beyond = _PYTHON
    here = ".".join(map(str, sys.version_info[:3]))
    if oldest <= sys.version_info[:2] < beyond:
        yield Finding("ok", here)
    else:
        yield Finding("failed", f"this is Python {here}: use {'.'.join(map(str, oldest))} or later, before {'.'.join(map(str, beyond))}")


def _database() -> Findings:
    try:
        found = revisions(database_url())
    except TargetUnavailable as error:
        yield Finding("failed", ": ".join(explained(error)), error.exit_status)
        return
    where = "IDENTITY_DATABASE_URL" if settings.database_url() else f"embedded in {settings.home()}"
    yield Finding("failed", found.faults) if found.faults else Finding("ok", f"PostgreSQL {found.server}, schema {found.current}, {where}")


def _dagster_home() -> Findings:
    given = os.environ.get("DAGSTER_HOME")
    folder = Path(given) if given else services.project()
    if not folder.is_dir():
        yield Finding("failed", f"DAGSTER_HOME is {folder}, which is no folder: set it to the project's folder, which has dagster.yaml")
    elif not (folder / "dagster.yaml").is_file():
        yield Finding(
            "failed",
            f"{folder} has no dagster.yaml, so Dagster keeps its runs in files there: set DAGSTER_HOME to the project's folder",
        )
    else:
        yield Finding("ok", f"{folder}" if given else f"{folder} (DAGSTER_HOME is not set; the project's folder is taken)")


def _dagster_storage() -> Findings:
    services.project()
    with dg.DagsterInstance.get() as instance:
        instance.get_runs(limit=1)
    yield Finding("ok", "runs and events can be read")


def _daemon() -> Findings:
    services.project()
    with dg.DagsterInstance.get() as instance:
        statuses = instance.get_daemon_statuses()
        queued = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
    ill = [name.lower() for name, status in statuses.items() if status.required and not status.healthy]
    waiting = any(source.schedule or source.full_refresh_schedule or source.sensor for source in _declared().values())
    if ill and queued:
        yield Finding(
            "failed",
            f"{queued} runs wait in the queue and no daemon starts them: start it (`identity-pipeline serve`, or dagster-daemon run)",
        )
    if ill:
        yield Finding(
            "failed" if waiting else "warning",
            f"no sign of life of {', '.join(ill)}: schedules, sensors and the queue stand still: start it (`identity-pipeline "
            "serve`, or dagster-daemon run); `identity-pipeline ingest` needs none",
        )
    else:
        yield Finding("ok", "alive")


def _landing() -> Findings:
    url = settings.landing_url()
    place = url.partition("?")[0]
    try:
        system, folder = Landing(url).at()
        make_folder(system, folder)
        path = f"{folder}/.doctor-{os.getpid()}"
        with system.open_output_stream(path) as stream:
            stream.write(b"written by identity-pipeline doctor")
        system.delete_file(path)
    except (OSError, ValueError) as error:
        yield Finding("failed", f"{place} cannot be written ({type(error).__name__}): make it writable, or set IDENTITY_LANDING_URL")
        return
    yield Finding("ok", f"{place} can be written")
    if "://" in url:
        return
    free = shutil.disk_usage(url).free
    left = f"{free / 2**30:.1f} GB free for the landing"
    yield Finding("ok", left) if free >= _FREE_BYTES else Finding("failed", f"{left}: free some space; a load lands its records there")


def _sources() -> Findings:
    folder, declared = settings.sources_folder(), declarations()
    yield from (Finding("failed", str(problem)) for problem in declared.problems)
    if not declared.sources:
        yield Finding("warning", f"no source in {folder}: `identity-pipeline sources new SOURCE_TYPE NAME` writes a file to fill in")
    else:
        yield Finding("ok", f"{len(declared.sources)} declared in {folder}")


def _declared() -> dict[str, Source]:
    """The sources that can be loaded; what is wrong with the others, or with the folder, has its own check."""
    return folders.load(settings.sources_folder()).sources


def _api_versions() -> Findings:
    today = datetime.now(UTC).date()
    ending = [f"{source.name}: {text}" for source in _declared().values() if (text := source.resource().ending(today))]
    yield from (Finding("warning", text) for text in ending)
    if not ending:
        yield Finding("ok", "no source uses one that ends within 90 days")


def _environment() -> Findings:
    bundled = folders.load(settings.PACKAGE / "sources").sources
    found = [
        Finding("warning", f"{fault}; `make demo` and `make dev` set it themselves")
        if bundled.get(source.name) == source
        else Finding("failed", fault)
        for source in _declared().values()
        for fault in missing(source)
    ]
    yield from found
    if not found:
        yield Finding("ok", "every environment variable that a source names is set")


def _encryption() -> Findings:
    keys = keyring.keys()
    place = keyring.VARIABLE if os.environ.get(keyring.VARIABLE) else str(keyring.key_file())
    if keys:
        yield Finding("ok", f"{len(keys)} of {place}")
    else:
        yield Finding("ok", f"none yet: {place} is made when the first credential is stored")


def _credentials() -> Findings:
    url = database_url()
    faults = vault.unreadable(url)
    stored = {row["name"] for row in vault.listing(url)}
    for source in _declared().values():
        for setting, reference in source.references.items():
            if isinstance(reference, Credential) and reference.name not in stored:
                faults.append(
                    f"{source.name}: config.{setting}: there is no credential {reference.name!r}: "
                    f"identity-pipeline credentials set {reference.name}"
                )
    yield from (Finding("failed", fault) for fault in faults)
    if not faults:
        yield Finding("ok", f"{len(stored)} stored, all of them open")


def _code_location() -> Findings:
    # What is wrong with a source has its own check; here it would be said a second time, as a log line.
    log = logging.getLogger("identity_pipeline.sources")
    log.disabled = True
    try:
        assets.definitions()
    finally:
        log.disabled = False
    yield Finding("ok", f"loads, executor {settings.executor()}")


def _marks() -> Findings:
    marks, now = listing.latest(database_url()), datetime.now(UTC)
    ahead = [
        (source.name, mark)
        for source in _declared().values()
        if source.cursor_kind and source.cursor_kind[0] == "timestamp" and (mark := marks.get(source.name, {}).get("mark"))
        if _lies_after(mark, now + _CLOCKS_DIFFER)
    ]
    for name, mark in ahead:
        yield Finding(
            "failed",
            f"{name}: its mark {mark} lies in the future: loads see nothing below it. Correct the value in the source, then run "
            f"`identity-pipeline ingest {name} --full`",
        )
    if not ahead:
        yield Finding("ok", "none lies in the future")


def _lies_after(mark: str, moment: datetime) -> bool:
    try:
        return datetime.fromisoformat(mark) > moment
    except (ValueError, TypeError):  # an unreadable mark counts as none, and the load says so
        return False


def _dead_loads() -> Findings:
    after = 2 * lease.LEASE_SECONDS
    dead = listing.dead_loads(database_url(), after)
    for load in dead:
        yield Finding(
            "warning",
            f"{load['source_name']}: load {load['load_id']} of run {load['run_id']} gave no sign of life for {after:.0f} s: nothing to do, "
            "the source's next load takes over",
        )
    if not dead:
        yield Finding("ok", "none")


def _dead_runs() -> Findings:
    services.project()
    alive = lease.running_runs(database_url(), within=GRACE.total_seconds())
    with dg.DagsterInstance.get() as instance:
        started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], updated_before=datetime.now(UTC) - GRACE)
        dead = [run.run_id for run in instance.get_runs(started) if run.run_id not in alive]
    for run_id in dead:
        yield Finding("warning", f"run {run_id} counts as started but gives no sign of life: the sensor dead_runs closes it")
    if not dead:
        yield Finding("ok", "none")


CHECKS: dict[str, Callable[[], Findings]] = {
    "python": _python,
    "database": _database,
    "dagster_home": _dagster_home,
    "dagster_storage": _dagster_storage,
    "daemon": _daemon,
    "landing": _landing,
    "sources": _sources,
    "api_versions": _api_versions,
    "environment": _environment,
    "encryption_key": _encryption,
    "credentials": _credentials,
    "code_location": _code_location,
    "marks": _marks,
    "dead_loads": _dead_loads,
    "dead_runs": _dead_runs,
}

NEED_DATABASE = frozenset({"dagster_storage", "daemon", "credentials", "marks", "dead_loads", "dead_runs"})
