"""The stream: one ``SELECT``, whose result comes as Arrow batches, each value as text in canonical form.

One statement is one snapshot. Snowflake turns values into text, exactly; only floats come as they are, and get
the shortest text that makes the same number again.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
from snowflake.connector import SnowflakeConnection

from identity_pipeline.core.text import cast_all_utf8
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.catalog import Column, Table
from identity_pipeline.readers.sql.cursor import CursorKind, FollowedColumn
from identity_pipeline.readers.sql.snowflake import catalog
from identity_pipeline.readers.sql.snowflake.names import DIALECT

BATCH_ROWS = 50_000

_UTC = "to_varchar(CAST(convert_timezone('UTC', {c}) AS timestamp_ntz))"
_FORMS = {
    "FLOAT": "{c}",
    "TIMESTAMP_LTZ": _UTC,
    "TIMESTAMP_TZ": _UTC,
    "VARIANT": "to_json({c})",
    "OBJECT": "to_json({c})",
    "ARRAY": "to_json({c})",
    "BINARY": "base64_encode({c})",
    "GEOGRAPHY": "st_aswkt({c})",
    "GEOMETRY": "st_aswkt({c})",
}
_INSTANTS = {"TIMESTAMP_LTZ": "Z", "TIMESTAMP_TZ": "Z", "TIMESTAMP_NTZ": ""}
_BOUNDS: dict[CursorKind, str] = {
    "int": "CAST(? AS number(38, 0))",
    "instant": "CAST(? AS timestamp_tz)",
    "local": "CAST(? AS timestamp_ntz)",
    "date": "CAST(? AS date)",
    "text": "?",
}
_LARGEST = 10**38 - 1


def maximum(connection: SnowflakeConnection, table: Table, followed: FollowedColumn) -> str | None:
    """The largest value of an ``int`` or ``text`` column."""
    [[found]] = catalog.ask(connection, f"SELECT to_varchar(max({_place(followed)})) FROM {table}")
    return found


def batches(connection: SnowflakeConnection, table: Table, followed: FollowedColumn | None, window: Window) -> Iterator[pa.Table]:
    """The rows of ``table`` from the window's lower bound on, and those without a cursor value, in no order."""
    context, names = window.context, [column.name for column in table.columns]
    statement, values = select(table, followed, window)
    context.requests += 1
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        for found in cursor.fetch_arrow_batches():
            for part in found.to_batches(max_chunksize=BATCH_ROWS):
                context.pages += 1
                context.bytes_read += part.nbytes
                columns = [_text(part.column(at), column) for at, column in enumerate(table.columns)]
                yield cast_all_utf8(pa.table(columns, names=names))


def select(table: Table, followed: FollowedColumn | None, window: Window) -> tuple[str, list[str]]:
    """The statement for the rows that ``window`` asks for, and the values to bind."""
    chosen = (_FORMS.get(column.base_type, "to_varchar({c})").format(c=DIALECT.quoted([column.name])) for column in table.columns)
    query, values = f"SELECT {', '.join(chosen)} FROM {table}", []
    if followed is not None and window.lower is not None:
        place = _place(followed)
        query += f" WHERE {place} >= {_BOUNDS[followed.kind]} OR {place} IS NULL"
        values = [_bound(followed, window.lower)]
    return (query if window.limit is None else f"{query} LIMIT {window.limit:d}"), values


def _place(followed: FollowedColumn) -> str:
    """The column as what orders its rows: text by its bytes."""
    column = DIALECT.quoted([followed.name])
    return f"collate({column}, '')" if followed.base_type == "COLLATED" else column


def _bound(followed: FollowedColumn, lower: str) -> str:
    if followed.kind == "text":
        return lower
    if followed.kind == "int":
        return str(max(min(int(lower), _LARGEST), -_LARGEST))
    if followed.kind == "instant":
        return datetime.fromisoformat(lower).astimezone(UTC).isoformat()
    return followed.wall(lower)


def _text(values: pa.Array, column: Column) -> pa.Array:
    if (zone := _INSTANTS.get(column.base_type)) is None:
        return values
    iso = pc.replace_substring(pc.cast(values, pa.string()), " ", "T")
    whole = pc.replace_substring_regex(pc.replace_substring_regex(iso, r"(\.\d*?)0+$", r"\1"), r"\.$", "")
    return pc.binary_join_element_wise(whole, zone, "")
