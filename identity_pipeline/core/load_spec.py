"""What a load has to know of its source."""

from dataclasses import dataclass

from identity_pipeline.core.cursor import Cursor, Order
from identity_pipeline.core.fieldmap import FieldMap


@dataclass(frozen=True)
class LoadSpec:
    """What a load has to know of its source. Plain values, so that it can be handed on between ops.

    ``overlap`` is subtracted from the mark, ``first`` is where the first load starts. ``mapped`` are the
    source fields of the user's own ``mapping``, one group for each canonical field. ``timezone`` is that
    of times without one. ``settings``
    changes when another thing would be read. ``whole`` says that a read that ends is known to be whole
    and that each of its batches has every field, ``snapshot`` that it shows the present state of each
    record, so that what a later load reads is newer, whatever its cursor says.
    """

    source_name: str
    source_type: str
    field_map: FieldMap
    cursor: Cursor | None = None
    order: Order = "oldest_first"
    overlap: float = 0
    first: str | None = None
    default_region: str | None = None
    mapped: tuple[tuple[str, ...], ...] = ()
    settings: str = ""
    whole: bool = True
    snapshot: bool = False
    max_deleted_share: float = 0.2
    timezone: str = "UTC"
