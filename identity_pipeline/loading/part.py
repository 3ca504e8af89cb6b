"""The merge of one landed part, as a task of plain values."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.loading.read import Read
from identity_pipeline.loading.spec import Target, rules
from identity_pipeline.store.landing import Part
from identity_pipeline.store.load import Load
from identity_pipeline.store.merge import PartCounts, merge_part


@dataclass(frozen=True)
class PartTask:
    """One part to merge."""

    spec: LoadSpec
    load: Load
    part: Part


def tasks(spec: LoadSpec, found: Read) -> list[PartTask]:
    """The parts that a read landed."""
    return [PartTask(spec, found.load, landed.part) for landed in found.summary.parts]


def merge(task: PartTask, target: Target) -> PartCounts:
    """Normalise and merge what is new or changed in one part, in one transaction.

    Raises:
        Superseded: a newer load has the source.
        TargetUnavailable: the database went away; nothing of the part stays.
    """
    name, load_id, landing = task.load.source_name, task.load.load_id, target.landing

    def whole(columns: list[str]) -> Iterator[tuple[Part, pa.Table]]:
        return landing.whole(name, load_id, columns)

    batches = landing.tables(name, load_id, task.part)
    return merge_part(target.url, task.load, task.part, batches, rules(task.spec), whole=whole)
