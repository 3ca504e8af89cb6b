"""Sensors on drops: a load begins when files arrive.

A tick lists the files, compares them with what committed loads have read, and no more: the run lists
again itself, so that it is a whole one and its mark moves. What is new, together with the number of
the source's last load, is the key of the run. So a tick that is repeated starts nothing twice, and
what a load that failed has not read comes again. Nothing is kept between ticks that could be lost.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import dagster as dg

from identity_pipeline.connectors.base import StorageConnector
from identity_pipeline.core.errors import PipelineError
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.declarations.opened import opened
from identity_pipeline.declarations.source import Source
from identity_pipeline.embedded.location import database_url
from identity_pipeline.loading.spec import known_files
from identity_pipeline.store import ledger

INTERVAL = 60
"""Seconds between two looks."""
PATIENCE = 45.0
"""Seconds of one look: Dagster waits for a tick for a minute."""
AFTER_FAILURE = timedelta(minutes=5)
"""So long what a failed load has not read is left alone."""


def drops(source: Source) -> dg.SensorDefinition:
    """The sensor of one source."""

    @dg.sensor(
        name=f"{source.name}_drops",
        target=dg.AssetSelection.assets(source.name),
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Starts a load of {source.name} when files are new or changed there",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        try:
            return _look(source)
        except PipelineError as error:
            context.log.warning(str(error))
            return dg.SkipReason(str(error))

    return tick


def _look(source: Source) -> dg.RunRequest | dg.SkipReason:
    """The run that is to begin, or why none is.

    Raises:
        PipelineError: the files or the database cannot be asked; without a secret in it.
    """
    url, now = database_url(), datetime.now(UTC)
    last, stored = ledger.last_load(url, source.name), ledger.state(url, source.name)
    if stored.not_before and stored.not_before > now:
        return dg.SkipReason(f"the source asked us to wait until {stored.not_before:%Y-%m-%d %H:%M UTC}")
    if last and last.status == "running":
        return dg.SkipReason(f"load {last.load_id} is at work: it lists the files itself")
    if last and last.status == "failed" and last.finished_at and last.finished_at + AFTER_FAILURE > now:
        minutes = AFTER_FAILURE.seconds // 60
        return dg.SkipReason(f"load {last.load_id} failed a moment ago: its files are looked at again after {minutes} minutes")
    here = opened(source, lambda: url)
    window = Window(here.spec.cursor, files=known_files(here.spec, stored), by_mark=True, limit=1, context=ReadContext(log=lambda _: None))
    with here.redacting(), _in_time(source.name) as pool:
        assert isinstance(here.connector, StorageConnector)  # noqa: S101 - as the declaration was judged
        entries = pool.submit(here.connector.unread, window).result(PATIENCE)
    if not entries:
        return dg.SkipReason("no file is new or changed")
    told = "\n".join(f"{entry.name}\0{entry.version}" for entry in entries)
    return dg.RunRequest(
        run_key=f"{source.name}:{last.load_id if last else 0}:{hashlib.sha256(told.encode()).hexdigest()[:16]}",
        asset_selection=[dg.AssetKey([source.name])],
        tags={"identity/source": source.name},
    )


@contextmanager
def _in_time(source_name: str) -> Iterator[ThreadPoolExecutor]:
    """A thread for a look that must not last.

    Raises:
        PipelineError: it lasted.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"{source_name}_drops")
    try:
        yield pool
    except TimeoutError:
        raise PipelineError(
            f"{source_name}: listing the files takes longer than {PATIENCE:g} s: use a narrower prefix, or a schedule instead of the sensor"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
