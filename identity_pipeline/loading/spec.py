"""Around a load's spec: what it reads from, where it writes, what one run may choose, what the merge goes by."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import pyarrow as pa

from identity_pipeline import normalise
from identity_pipeline.core.errors import SchemaChanged
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.text import Batch
from identity_pipeline.core.window import Window
from identity_pipeline.store.batch import Rules
from identity_pipeline.store.landing import Landing
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
    """What one run may choose. ``force`` asks a source that wants to be left alone for a while."""

    cursor_after: str | None = None
    full_refresh: bool = False
    objects: tuple[str, ...] = ()
    limit: int | None = None
    force: bool = False

    @property
    def partial(self) -> bool:
        """True if the run reads less than its window, so that the mark must stay where it is."""
        return bool(self.objects or self.limit)


def fingerprint(spec: LoadSpec) -> str:
    """A short text that changes when the same record could become other canonical fields."""
    return _fingerprint(spec.field_map, spec.default_region)


@lru_cache(1024)
def _fingerprint(field_map: FieldMap, default_region: str | None) -> str:
    return normalise.fingerprint(field_map, default_region)


def rules(spec: LoadSpec) -> Rules:
    """What the merge goes by."""

    def canonicalise(records: pa.Table) -> pa.Table:
        return normalise.canonicalise(records, spec.field_map, default_region=spec.default_region)

    return Rules(spec.field_map, canonicalise, fingerprint(spec), Recency(spec.cursor, spec.order, spec.snapshot))


def unknown_fields(spec: LoadSpec, known: Collection[str]) -> list[str]:
    """The source fields of the user's own mapping that are not among those the source has, where none of their group is."""
    return [name for group in spec.mapped if not set(group) & set(known) for name in group]


def check_id(spec: LoadSpec, known: Collection[str], key: tuple[str, ...]) -> None:
    """Refuse a source in whose fields ``known`` is none that can be the external id; ``key`` is the source's own key.

    Raises:
        SchemaChanged: there is none.
    """
    if {*spec.field_map.external_id} & {*known}:
        return
    fix = f"its primary key is {key[0]!r}: set id_column to it" if len(key) == 1 else "set `mapping: {external_id: …}` of the source"
    raise SchemaChanged(
        f"{spec.source_name}: no field can be the external id: looked for {', '.join(spec.field_map.external_id[:10])}; the source "
        f"has {', '.join(sorted(known)[:30])}: {fix}"
    )
