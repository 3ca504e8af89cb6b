"""The canonical fields: what a record says about a person, in one shape for all sources."""

import pyarrow as pa

from identity_pipeline.core.cursor import INSTANT

_TEXTS = pa.list_(pa.string())

CANONICAL = pa.schema(
    [
        ("email", pa.string()),
        ("email_verdict", pa.string()),
        ("phone", pa.string()),
        ("phone_verdict", pa.string()),
        ("emails", _TEXTS),
        ("phones", _TEXTS),
        ("full_name", pa.string()),
        ("first_name", pa.string()),
        ("last_name", pa.string()),
        ("company", pa.string()),
        ("job_title", pa.string()),
        ("street", pa.string()),
        ("city", pa.string()),
        ("region", pa.string()),
        ("postal_code", pa.string()),
        ("country", pa.string()),
        ("source_created_at", INSTANT),
        ("source_updated_at", INSTANT),
        ("deleted_at", INSTANT),
        ("merged_into", pa.string()),
    ]
)
"""Columns of ``identity.records`` that normalising makes. ``emails`` and ``phones`` are never null, without a value they are empty."""

SIGNALS = pa.schema([("absorbed", _TEXTS), ("deleted", pa.bool_())])
"""What normalising finds beside them: ids of records merged into this one; that it was deleted, with or without a time."""

_POSTGRES = {pa.string(): "text", _TEXTS: "text[]", INSTANT: "timestamptz"}

RECORD_COLUMNS = {
    "source_name": "text",
    "external_id": "text",
    "source_type": "text",
    **{field.name: _POSTGRES[field.type] for field in CANONICAL},
    "raw": "jsonb",
    "record_hash": "bytea",
    "first_seen_at": "timestamptz",
    "changed_at": "timestamptz",
    "absent_since_load": "bigint",
    "load_id": "bigint",
}
"""Columns of ``identity.records`` and their types."""
