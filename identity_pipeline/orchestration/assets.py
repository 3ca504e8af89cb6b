"""From declared sources to Dagster definitions: one asset and resource each, one job, few schedules."""

import logging
import re
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta

import dagster as dg
from cron_descriptor import FormatException, Options, get_description

from identity_pipeline.core import settings
from identity_pipeline.core.canonical import RECORD_COLUMNS
from identity_pipeline.core.errors import ConfigurationError, PipelineError
from identity_pipeline.core.secret import Reference
from identity_pipeline.declarations.folder import load
from identity_pipeline.declarations.freshness import max_age
from identity_pipeline.declarations.source import Source
from identity_pipeline.embedded.location import database_url
from identity_pipeline.orchestration.drops import drops
from identity_pipeline.orchestration.health import dead_runs
from identity_pipeline.orchestration.io_manager import JsonIOManager
from identity_pipeline.orchestration.ops import commit_op, normalise_records, read_op
from identity_pipeline.orchestration.results import CHECKS
from identity_pipeline.orchestration.webhook import failed_runs
from identity_pipeline.readers.http.guard import display_url
from identity_pipeline.store import ledger

JOB = "ingest"
RECORDS = dg.AssetKey(["identity", "records"])

_SPELLED = {"*": "x", "/": "by", ",": "and", "-": "to", "#": "nth"}

_SCHEMA = dg.TableSchema(columns=[dg.TableColumn(name, kind, meaning) for name, (kind, meaning) in RECORD_COLUMNS.items()])


narrowed: Collection[str] | None = None
"""What the process of one run sets to the run's sources: of five hundred it need not build all."""


def asset(source: Source) -> dg.AssetsDefinition:
    """The asset of one source: read, normalise_records over each part, commit."""
    connector = source.connector
    title = (sys.modules[connector.__module__].__doc__ or "").partition("\n")[0]

    address = _address(source)

    @dg.graph_asset(
        name=source.name,
        group_name=connector.group,
        kinds={connector.vendor, "postgres"},
        owners=source.owners,
        tags={"identity/source_type": source.source_type},
        description="\n\n".join(
            [source.description or title, *(f"`{name}`: {text}" for name, text in address.items()), f"[Its page]({_page(source.name)})"]
        ),
        metadata={
            "page": dg.MetadataValue.url(_page(source.name)),
            **_shown(address),
            "dagster/table_name": "identity.records",
            "dagster/column_schema": _SCHEMA,
        },
        check_specs=[dg.AssetCheckSpec(check, asset=source.name, description=meaning) for check, meaning in CHECKS.items()],
    )
    def ingested() -> dict[str, object]:
        parts, manifest = read_op(source).alias("read")()
        merged = parts.map(normalise_records)
        done = commit_op(source).alias("commit")(manifest, merged.collect())
        return {"result": done.result, **{f"{source.name}_{check}": getattr(done, check) for check in CHECKS}}

    age = max_age(source)
    return ingested if age is None else ingested.map_asset_specs(lambda spec: dg.apply_freshness_policy(spec, _stale_after(age)))


def _page(name: str) -> str:
    """Where the web server shows it: from Dagster's UI, which stands on the same server, a path is enough."""
    return f"{settings.public_url()}/sources/{name}"


def _address(source: Source) -> dict[str, str]:
    """Where it is read from: its settings as declared, an address without its query, a secret as the place where it is kept."""
    declared = {name: str(value) for name, value in source.config.items() if isinstance(value, str | Reference)}
    return {name: display_url(value) if "://" in value else value for name, value in declared.items()}


def _shown(address: dict[str, str]) -> dict[str, dg.MetadataValue]:
    """An address as metadata."""
    return {f"config/{name}": (dg.MetadataValue.url if "://" in text else dg.MetadataValue.text)(text) for name, text in address.items()}


def records(sources: Iterable[Source]) -> dg.AssetSpec:
    """The identity table, which every source feeds. It has no step of its own and is not in the job."""
    return dg.AssetSpec(
        RECORDS,
        deps=[dg.AssetKey([source.name]) for source in sources],
        group_name="identity",
        kinds={"postgres"},
        description="Everybody, one row for each record of each source: the table identity.records.",
        metadata={"dagster/table_name": "identity.records", "dagster/column_schema": _SCHEMA},
    )


def _stale_after(age: timedelta) -> dg.FreshnessPolicy:
    """Stale without a load, as Dagster's daemon evaluates it: a source that stopped is seen."""
    return dg.FreshnessPolicy.time_window(fail_window=age)


def schedules(sources: Iterable[Source]) -> Iterator[dg.ScheduleDefinition]:
    """One schedule for each distinct cron, one run request for each of its sources."""
    by_cron: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for source in sources:
        if source.schedule:
            by_cron[source.schedule, False].append(source.name)
        if source.full_refresh_schedule:
            by_cron[source.full_refresh_schedule, True].append(source.name)
    for (cron, full_refresh), names in sorted(by_cron.items()):
        yield _schedule(_schedule_name(cron, full_refresh=full_refresh), cron, names, full_refresh=full_refresh)


def _schedule_name(cron: str, *, full_refresh: bool) -> str:
    """A name that says the cron: Dagster keeps a schedule's state, stopped or running, under it, whatever else is declared."""
    spelled = re.sub(r"\W+", "_", "".join(_SPELLED.get(c, c) for c in cron))
    return f"{'full_refresh' if full_refresh else 'load'}_at_{spelled.strip('_')}"


def _in_words(cron: str) -> str:
    options = Options()
    options.use_24hour_time_format = True
    try:
        return get_description(cron, options)
    except FormatException:  # Dagster knows forms that this library does not, such as @daily
        return cron


def _schedule(name: str, cron: str, sources: list[str], *, full_refresh: bool) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=name,
        cron_schedule=cron,
        target=dg.AssetSelection.assets(*sources),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"{_in_words(cron)}: {'full refresh' if full_refresh else 'load'} of {', '.join(sources)}",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        waiting = _postponed(sources)
        for source, until in waiting.items():
            context.log.info(f"{source}: the source asked us to wait until {until:%Y-%m-%d %H:%M UTC}: no run was started")
        if len(waiting) == len(sources):
            return dg.SkipReason(f"every source asked us to wait, the last until {max(waiting.values()):%Y-%m-%d %H:%M UTC}")
        return [
            dg.RunRequest(
                run_key=f"{source}:{context.scheduled_execution_time.isoformat()}",
                asset_selection=[dg.AssetKey([source])],
                run_config=run_config(source, full_refresh=full_refresh),
                tags={"identity/source": source},
            )
            for source in sources
            if source not in waiting
        ]

    return tick


def _postponed(sources: list[str]) -> dict[str, datetime]:
    """Those of the sources that want to be left alone, and until when. None if the database does not say: their runs will."""
    try:
        return {name: until for name, until in ledger.postponed(database_url()).items() if name in sources}
    except PipelineError:
        return {}


def run_config(source_name: str, **choices: object) -> dict[str, object]:
    """Run config of the read op of one source; ``choices`` are fields of its config."""
    given = {name: value for name, value in choices.items() if value}
    return {"ops": {source_name: {"ops": {"read": {"config": given}}}}} if given else {}


def _executor() -> dg.ExecutorDefinition:
    wanted = settings.executor()
    if wanted == "in_process":
        return dg.in_process_executor
    if wanted == "multiprocess":
        return dg.multiprocess_executor
    raise ConfigurationError(f"IDENTITY_EXECUTOR: {wanted!r} is not built yet; known are in_process and multiprocess")


def definitions() -> dg.Definitions:
    """Everything that the code location holds. A broken source is logged and left out."""
    declared = load(settings.sources_folder())
    log = logging.getLogger("identity_pipeline.sources")
    for problem in declared.problems:
        log.error("source not loaded: %s", problem)
    sources = [source for source in declared.sources.values() if narrowed is None or source.name in narrowed]
    return dg.Definitions.merge(
        definitions_of(sources, _executor()),
        dg.Definitions(assets=[records(sources)] if sources else [], schedules=list(schedules(sources)), sensors=_sensors(sources)),
    )


def _sensors(sources: Iterable[Source]) -> list[dg.SensorDefinition]:
    own = [dead_runs, failed_runs] if settings.failure_webhook() else [dead_runs]
    return [*own, *(drops(source) for source in sources if source.sensor)]


def definitions_of(sources: Sequence[Source], executor: dg.ExecutorDefinition) -> dg.Definitions:
    """The job and what a run of it needs: the assets of these sources and their resources."""
    job = dg.define_asset_job(
        JOB,
        dg.AssetSelection.assets(*(source.name for source in sources)) if sources else dg.AssetSelection.all(),
        executor_def=executor,
        description="Loads the selected sources into the identity table.",
        tags={"dagster/retry_strategy": "ALL_STEPS"},
    )
    return dg.Definitions(
        assets=[asset(source) for source in sources],
        resources={**{source.name: source.resource() for source in sources}, "io_manager": JsonIOManager()},
        jobs=[job],
        executor=executor,
    )
