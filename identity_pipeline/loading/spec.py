"""Around a load's spec: what it reads from, where it writes, what one run may choose, what the merge goes by."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol

import pyarrow as pa

from identity_pipeline import normalise
from identity_pipeline.core.cursor_filter import Departed
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.file_version import FileVersion
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.text import Batch
from identity_pipeline.core.window import Window
from identity_pipeline.store.batch import Rules
from identity_pipeline.store.landing import Landing
from identity_pipeline.store.ledger import SourceState
from identity_pipeline.store.recency import Recency


class Reader(Protocol):
    """What a load reads from: a connector whose secrets are at hand."""

    def read(self, window: Window) -> Iterator[Batch]:
        """Yield batches of the records that ``window`` asks for."""
        ...


@dataclass(frozen=True)
class Target:
    """Where a load writes: the identity database and the landing."""

    url: str
    landing: Landing


@dataclass(frozen=True)
class RunOptions:
    """What one run may choose. ``force`` asks a source that wants to be left alone for a while; ``scheduled``: nobody chose."""

    cursor_after: str | None = None
    full_refresh: bool = False
    objects: tuple[str, ...] = ()
    limit: int | None = None
    force: bool = False
    scheduled: bool = False

    @property
    def accepts_loss(self) -> bool:
        """True if somebody asked for a full refresh, by which a field of the source may go."""
        return self.full_refresh and not self.scheduled

    @property
    def partial(self) -> bool:
        """True if the run reads less than its window, so that the mark must stay where it is."""
        return bool(self.objects or self.limit)


def fingerprint(spec: LoadSpec) -> str:
    """A short text that changes when the same record could become other canonical fields."""
    return _fingerprint(spec.field_map, spec.default_region, spec.timezone)


@lru_cache(1024)
def _fingerprint(field_map: FieldMap, default_region: str | None, timezone: str) -> str:
    return normalise.fingerprint(field_map, default_region, timezone)


def canonicalise(spec: LoadSpec, records: pa.Table) -> pa.Table:
    """The canonical fields of a source's records, by its own rules."""
    return normalise.canonicalise(records, spec.field_map, default_region=spec.default_region, timezone=spec.timezone)


def departed(spec: LoadSpec) -> Departed:
    """Says which records of a source are told to be gone."""
    return partial(normalise.departed, field_map=spec.field_map)


def known_files(spec: LoadSpec, stored: SourceState, options: RunOptions | None = None) -> dict[str, FileVersion]:
    """The files that need not be read again: they were read as they would be now, and nobody asks for more."""
    if options is not None and (options.full_refresh or options.cursor_after):
        return {}
    return stored.files if stored.mapping == fingerprint(spec) and not stored.reads_other(spec.settings) else {}


def rules(spec: LoadSpec) -> Rules:
    """What the merge goes by."""
    return Rules(spec.field_map, partial(canonicalise, spec), fingerprint(spec), Recency(spec.cursor, spec.order, spec.snapshot))
