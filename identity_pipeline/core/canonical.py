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

_MEANINGS = {
    "email": "Primary e-mail address, valid and canonical",
    "email_verdict": "valid, missing, invalid, placeholder or role",
    "phone": "Primary phone number, valid, E.164",
    "phone_verdict": "valid, missing, invalid or placeholder",
    "emails": "All valid e-mail addresses, primary first",
    "phones": "All valid phone numbers, primary first",
    "full_name": "Given or joined from its parts",
    "first_name": "Given, or split from the full name",
    "last_name": "Given, or split from the full name",
    "company": "Organisation",
    "job_title": "Position",
    "street": "Street and number",
    "city": "Town",
    "region": "State, province or county",
    "postal_code": "Postal code, leading zeros kept",
    "country": "ISO 3166-1 alpha-2",
    "source_created_at": "When the source says it was made",
    "source_updated_at": "When the source says it was last changed",
    "deleted_at": "When it was deleted in the source, null while it is there",
    "merged_into": "External id of the record that took it in",
}
_POSTGRES = {pa.string(): "text", _TEXTS: "text[]", INSTANT: "timestamptz"}

RECORD_COLUMNS: dict[str, tuple[str, str]] = {
    "source_name": ("text", "The source as declared"),
    "external_id": ("text", "The record's id in its source"),
    "source_type": ("text", "The connector that read it"),
    **{field.name: (_POSTGRES[field.type], _MEANINGS[field.name]) for field in CANONICAL},
    "raw": ("jsonb", "Every field of the source, text or null"),
    "record_hash": ("bytea", "Hash of raw and mapping: the same hash, nothing to write"),
    "first_seen_at": ("timestamptz", "When a load first wrote it"),
    "changed_at": ("timestamptz", "When a load last changed it"),
    "absent_since_load": ("bigint", "The full refresh that missed it first, null while it is seen"),
    "load_id": ("bigint", "The load that wrote it last"),
}
"""Columns of ``identity.records``: type and meaning."""
