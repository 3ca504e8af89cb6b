"""The ops: read (one per source), normalise_records (one, shared by all sources), commit (one per source).

They are thin: what a load does is written in ``loading``. What they hand each other are its tasks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import dagster as dg
from pydantic import Field

from identity_pipeline.connectors.base import Connector
from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.failpoint import reached
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.declarations.opened import opened
from identity_pipeline.declarations.source import Source, differing
from identity_pipeline.embedded.location import database_url
from identity_pipeline.loading import commit as committing
from identity_pipeline.loading import part as merging
from identity_pipeline.loading import read as reading
from identity_pipeline.loading.part import PartTask
from identity_pipeline.loading.read import Read
from identity_pipeline.loading.spec import RunOptions, Target
from identity_pipeline.orchestration import io_manager, marks
from identity_pipeline.orchestration.boundary import boundary
from identity_pipeline.orchestration.results import CHECKS, checks, metadata
from identity_pipeline.store import lease, ledger
from identity_pipeline.store.landing import Landing
from identity_pipeline.store.load import Load
from identity_pipeline.store.merge import PartCounts

_RETRIES = 3
"""How often a part or a commit is tried again within its run."""


class ReadConfig(dg.Config):
    """What one run may choose."""

    cursor_after: str = Field(default="", description="Read from this cursor value on, instead of from the mark")
    full_refresh: bool = Field(default=False, description="Read everything, and mark as deleted what the source no longer has")
    objects: list[str] = Field(default=[], description="Only these files (file sources)")
    limit: int = Field(default=0, ge=0, description="Stop after so many records; the mark stays. 0: no limit")

    force: bool = Field(default=False, description="Ask the source although it wants to be left alone for a while")

    def options(self) -> RunOptions:
        """The choices of this run."""
        return RunOptions(self.cursor_after or None, self.full_refresh, tuple(self.objects), self.limit or None, self.force)


@dataclass(frozen=True)
class Manifest:
    """What a read hands to the commit."""

    spec: LoadSpec
    read: Read


def target() -> Target:
    """Where loads write, as the environment says."""
    return Target(database_url(), Landing(settings.landing_url()))


def read_op(source: Source) -> dg.OpDefinition:
    """The op that reads and lands one source."""
    name = source.name

    @dg.op(
        name=f"{name}__read",
        description=f"Reads {name} from its mark on and lands the records in parts.",
        required_resource_keys={name},
        pool=f"source_{name}",
        retry_policy=dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS),
        out={"parts": dg.DynamicOut(PartTask), "manifest": dg.Out(Manifest)},
    )
    def read(context: dg.OpExecutionContext, config: ReadConfig) -> Iterator[dg.DynamicOutput | dg.Output]:
        redactor = Redactor()
        # A run that was launched by `dagster job launch` says in the list of runs which source it loads, too.
        context.instance.add_run_tags(context.run_id, {"identity/source": name})
        with boundary(context, redactor):
            _refuse_override(source, getattr(context.resources, name))
            to = target()
            it = opened(source, lambda: to.url, redactor)
            found = reading.read(
                it.spec,
                it.connector,
                to,
                context.run_id,
                options=replace(config.options(), scheduled="dagster/schedule_name" in context.run.tags),
                published=marks.published(context.instance, to.url, name),
                log=context.log.info,
                redactor=redactor,
            )
        for task in merging.tasks(it.spec, found):
            yield dg.DynamicOutput(task, mapping_key=f"part_{task.part.number:05d}", output_name="parts")
        yield dg.Output(Manifest(it.spec, found), "manifest")

    return read


def _refuse_override(source: Source, arrived: Connector) -> None:
    """Settings are the declaration's alone: a run that could send the credential elsewhere would give it away."""
    if other := differing(source.resource(), arrived):
        raise ConfigurationError(
            f"{source.name}: this run's configuration sets {', '.join(other)} of the source to another value than its declaration: "
            "remove it from the run's config, or change the declaration"
        )


@contextmanager
def _taken_up(context: dg.OpExecutionContext, load: Load, to: Target) -> Iterator[Load]:
    """The load that this run works on, its lease held; closed as failed when no retry will follow."""
    load = replace(load, run_id=context.run_id)
    with ledger.closing(to.url, load, retried=context.retry_number < _RETRIES):
        ledger.resume(to.url, load)
        with lease.hold(to.url, load):
            yield load


@dg.op(
    description="Normalises one landed part and merges it into identity.records. Shared by all sources.",
    retry_policy=dg.RetryPolicy(max_retries=_RETRIES, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS),
    # Depth first: a part is merged before the next one is picked up.
    tags={"dagster/priority": "10"},
)
def normalise_records(context: dg.OpExecutionContext, part: PartTask) -> PartCounts:
    """Merge one part: what is new or changed is normalised and written, in one transaction."""
    with boundary(context):
        to = target()
        with _taken_up(context, part.load, to) as load:
            counts = merging.merge(replace(part, load=load), to)
        context.log.info(
            f"load {load.load_id} part {part.part.number}: {counts.records:,} records: {counts.inserted:,} inserted, "
            f"{counts.updated:,} updated, {counts.unchanged:,} unchanged, {counts.duplicates:,} duplicates, "
            f"{counts.quarantined:,} quarantined in {counts.seconds:.1f} s"
        )
    return counts


def commit_op(source: Source) -> dg.OpDefinition:
    """The op that closes a load; its output is the materialization, its metadata the mark and the balance."""
    name = source.name

    @dg.op(
        name=f"{name}__commit",
        description=f"Checks that every part of {name} is merged, advances the mark, publishes the balance.",
        # The connector is named so that its page lists the asset under "Uses".
        required_resource_keys={name},
        out={"result": dg.Out(dg.Nothing), **{check: dg.Out(is_required=False) for check in CHECKS}},
        retry_policy=dg.RetryPolicy(max_retries=_RETRIES, delay=2, backoff=dg.Backoff.EXPONENTIAL),
    )
    def commit(context: dg.OpExecutionContext, manifest: Manifest, parts: list):  # noqa: ANN202, ARG001 - Dagster type-checks the annotation; parts orders the steps
        with boundary(context):
            to = target()
            with _taken_up(context, manifest.read.load, to) as load:
                row = committing.commit(manifest.spec, replace(manifest.read, load=load), to)
            io_manager.purge()
            for warning in row["warnings"]:
                context.log.warning(warning)
            results = checks(source, row)
        yield dg.Output(None, "result", metadata=metadata(row))
        reached("event")
        yield from results

    return commit
