"""Canonical fields: what a table of records says about people, in one shape for all sources."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.canonical import CANONICAL, SIGNALS
from identity_pipeline.core.cursor import INSTANT
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.text import SANITISED
from identity_pipeline.normalise import country, email, moment, name, phone
from identity_pipeline.normalise.cells import by_row, columns, first_filled, first_listed, listed, once_each, trimmed, truth, words

VERSION = "3"
"""Of the rules in this package. Raise it whenever any text becomes something else than before (a test compares)."""

_TEXTS = ("company", "job_title", "street", "city", "region", "postal_code")
FIELDS = pa.schema([*CANONICAL, *SIGNALS])
"""The columns of :func:`canonicalise`."""

_TRUE = pa.array(
    sorted(
        words(
            "true t yes y on 1 1.0 -1 x \x01 b'1' deleted wahr ja vrai oui verdadero verdadeiro sí si sim vero sì waar sand sant tak "
            "prawda ano да истина 真 是"
        )
    ),
    pa.string(),
)
"""How databases, spreadsheets and people write true: PostgreSQL t, Access -1, MySQL's bit 1, Excel WAHR."""
_ESCAPE = r"\\u(?:0000|d[89a-f][0-9a-f]{2})"
"""What :mod:`core.text` makes of a character that PostgreSQL cannot store."""

_LISTS = FIELDS.field("absorbed").type


@cache
def _libraries() -> dict[str, str]:
    return {library: version(library) for library in ("babel", "email-validator", "idna", "phonenumbers", "pycountry")}


def fingerprint(field_map: FieldMap, default_region: str | None = None, timezone: str = "UTC") -> str:
    """A short text that changes when the same record could become other canonical fields.

    It follows the rules' :data:`VERSION`, the libraries that decide with them, the map, the region and the time zone.
    """
    decides = [VERSION, _libraries(), asdict(field_map), country.alpha_2(default_region or "")]
    decides += [] if timezone == "UTC" else [timezone]
    return hashlib.blake2b(json.dumps(decides, sort_keys=True).encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


def canonicalise(records: pa.Table, field_map: FieldMap, *, default_region: str | None = None, timezone: str = "UTC") -> pa.Table:
    """The canonical fields of each record: the same rows in the same order, columns as in :data:`FIELDS`.

    ``records`` has source fields as columns, all text. A mapped field that is not there counts as
    null. No text makes this fail: what cannot be read is null.

    Args:
        records: the records.
        field_map: which source fields feed which canonical field.
        default_region: country of phone numbers whose record has none.
        timezone: that of times without one.
    """
    rows = records.num_rows
    ids, records = records, _without_escapes(records, field_map)
    made: dict[str, pa.Array] = {}

    def text(field: str) -> pa.Array:
        return first_filled([name.clean(first_listed(c)) for c in columns(records, getattr(field_map, field))], rows, pa.string())

    made["country"] = first_filled([country.codes(first_listed(c)) for c in columns(records, field_map.country)], rows, pa.string())
    made["email"], made["email_verdict"], made["emails"] = by_row(rows, [email.find(c) for c in columns(records, field_map.email)])
    numbers = columns(records, field_map.phone)
    home = country.alpha_2(default_region or "")
    regions = made["country"] if home is None or not numbers else pc.fill_null(made["country"], home)
    made["phone"], made["phone_verdict"], made["phones"] = by_row(rows, [phone.find(c, regions) for c in numbers])
    made["full_name"], made["first_name"], made["last_name"] = name.complete(text("full_name"), text("first_name"), text("last_name"))
    made |= {field: text(field) for field in _TEXTS}
    made |= {
        field: _when(records, getattr(field_map, field), timezone) for field in ("source_created_at", "source_updated_at", "deleted_at")
    }
    made["merged_into"] = first_filled([_id(c) for c in columns(ids, field_map.merged_into)], rows, pa.string())
    made["absorbed"] = _absorbed(columns(ids, field_map.absorbed), rows)
    made["deleted"] = _deleted(records, field_map, made["deleted_at"])
    return pa.table([made[field] for field in FIELDS.names], schema=FIELDS)


def _without_escapes(records: pa.Table, field_map: FieldMap) -> pa.Table:
    """The records without the visible escapes of characters that say nothing; ``raw`` keeps them."""
    if SANITISED not in records.column_names or not (marked := pc.is_valid(records.column(SANITISED)).combine_chunks()).true_count:
        return records
    for field in field_map.source_fields():
        for at in records.schema.get_all_field_indices(field)[:1]:
            bare = pc.replace_substring_regex(records.column(at), _ESCAPE, "")
            records = records.set_column(at, field, pc.if_else(marked, bare, records.column(at)))
    return records


def _id(column: pa.Array) -> pa.Array:
    """A column of one id each."""
    return trimmed(first_listed(column, texts=False))


def _ids(cell: str) -> list[str]:
    """The record ids that a cell lists."""
    items = listed(cell.strip())
    found = re.split(r"[;,]", cell) if items is None else items
    return list(dict.fromkeys(stripped for item in found if (stripped := item.strip())))


def _absorbed(cells: list[pa.Array], rows: int) -> pa.Array:
    filled = first_filled([trimmed(c) for c in cells], rows, pa.string())
    if filled.null_count == rows:
        return pa.nulls(rows, _LISTS)
    lists = once_each(filled.drop_null().to_pylist(), _ids)
    counts = np.zeros(rows, np.int32)
    counts[truth(filled.is_valid())] = [len(ids) for ids in lists]
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)])
    values = pa.array([item for ids in lists for item in ids], pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(counts == 0))


def departed(records: pa.Table, field_map: FieldMap) -> pa.Array:
    """Which records the source tells to be gone: deleted, or merged into another."""
    gone = _deleted(records, field_map, _when(records, field_map.deleted_at, "UTC"))
    for column in columns(records, field_map.merged_into):
        gone = pc.or_(gone, _id(column).is_valid())
    return gone


def _when(records: pa.Table, fields: Sequence[str], timezone: str) -> pa.Array:
    return first_filled([moment.moments(first_listed(c), timezone) for c in columns(records, fields)], records.num_rows, INSTANT)


def _deleted(records: pa.Table, field_map: FieldMap, deleted_at: pa.Array) -> pa.Array:
    deleted = deleted_at.is_valid()
    for field, value in field_map.deleted_when:
        for column in columns(records, [field]):
            said, wanted = pc.utf8_lower(pc.utf8_trim_whitespace(column)), value.strip().lower()
            said = pc.is_in(said, _TRUE) if wanted == "true" else pc.equal(said, wanted)
            deleted = pc.or_(deleted, pc.fill_null(said, False))
    return deleted
