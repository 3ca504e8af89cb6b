"""Which records cannot be merged, and why."""

import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.errors import SchemaChanged
from identity_pipeline.core.fieldmap import REJECTED, FieldMap

RESERVED = "@identity."
"""Beginning of the names of columns that are ours and not the source's."""
PLACE = "@identity.place"
"""Field that says which record of the stream this is, where not all of them are landed."""
MAX_ID_BYTES = 1_024
MAX_FIELD_BYTES = 1_048_576
MAX_FIELDS = 2_000
CODES = frozenset({"missing_id", "id_too_long", "field_too_long", "too_many_fields"})
"""The reasons that are found here. All others are a reader's, which saw more than the record."""


def id_field(batch: pa.Table, field_map: FieldMap, source_name: str) -> str:
    """The field of ``batch`` that is the external id.

    Raises:
        SchemaChanged: no field can be.
    """
    for name in field_map.external_id:
        if name in batch.column_names:
            return name
    names = [n for n in batch.column_names if not n.startswith(RESERVED)]
    looked = ", ".join([*field_map.external_id[:10], *(["…"] if len(field_map.external_id) > 10 else [])])
    raise SchemaChanged(
        f"{source_name}: no field can be the external id: looked for {looked}; the source has "
        f"{', '.join(names[:30])}: set `mapping: {{external_id: …}}` of the source; in a file see that its header is the first line"
    )


def reasons(batch: pa.Table, id_field: str) -> pa.Array:
    """Why each record cannot be merged, as ``code: detail``; null for one that can. No value of a record is quoted."""
    ids = batch.column(id_field).combine_chunks()
    found = batch.column(REJECTED).combine_chunks() if REJECTED in batch.column_names else pa.nulls(batch.num_rows, pa.string())
    blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(ids), ""), True)
    long = pc.fill_null(pc.greater(pc.binary_length(ids), MAX_ID_BYTES), False)
    found = pc.coalesce(
        found,
        pc.if_else(blank, f"missing_id: {id_field} is empty", None),
        pc.if_else(long, f"id_too_long: {id_field} is longer than {MAX_ID_BYTES} bytes", None),
    )
    for name in batch.column_names:
        column = batch.column(name)
        if (pc.max(pc.binary_length(column)).as_py() or 0) > MAX_FIELD_BYTES:
            large = pc.fill_null(pc.greater(pc.binary_length(column), MAX_FIELD_BYTES), False).combine_chunks()
            found = pc.coalesce(found, pc.if_else(large, f"field_too_long: {name} is longer than {MAX_FIELD_BYTES} bytes", None))
    if batch.num_columns > MAX_FIELDS:
        filled = pa.array([sum(v is not None for v in row.values()) for row in batch.to_pylist()])
        found = pc.coalesce(found, pc.if_else(pc.greater(filled, MAX_FIELDS), f"too_many_fields: more than {MAX_FIELDS}", None))
    return found
