"""The stream: one ``SELECT``, whose result comes page by page into Arrow, each value as text in canonical form.

One statement is one snapshot. What it would read is asked first, by a dry run that costs nothing: a limit does not
make a query cheaper, and only a filter on what the table is partitioned by does.
"""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from google.cloud import bigquery
from google.cloud.bigquery import retry as retries

from identity_pipeline.core.errors import LimitExceeded
from identity_pipeline.core.window import Window
from identity_pipeline.readers.sql.bigquery.names import DIALECT
from identity_pipeline.readers.sql.catalog import Column, Table
from identity_pipeline.readers.sql.cursor import CursorKind, FollowedColumn

BATCH_ROWS = 50_000
PATIENCE = 30.0
"""Seconds for which a request that fails in passing is made again."""
LONGEST = 4 * 3600

_JSON = "TO_JSON_STRING({c})"
_FORMS = {
    "BYTES": "TO_BASE64({c})", "JSON": _JSON, "ARRAY": _JSON, "RECORD": _JSON, "STRUCT": _JSON, "RANGE": _JSON,
    "GEOGRAPHY": "ST_ASTEXT({c})",
}  # fmt: skip
_TYPES: dict[CursorKind, str] = {"int": "INT64", "instant": "TIMESTAMP", "local": "DATETIME", "date": "DATE", "text": "STRING"}


def ask(client: bigquery.Client, query: str, values: list[Any], most: int, rows: int = BATCH_ROWS, *, dry: bool = False) -> Any:
    """Run a query: its rows, or as a dry run the number of bytes that it would read."""
    config = bigquery.QueryJobConfig(query_parameters=values, labels={"app": "identity-pipeline"}, job_timeout_ms=LONGEST * 1000)
    if dry:
        config.dry_run = True
    else:
        config.maximum_bytes_billed = most
    retry = retries.DEFAULT_RETRY.with_timeout(PATIENCE)
    job = client.query(query, job_config=config, retry=retry, job_retry=None, timeout=PATIENCE)
    return job.total_bytes_processed or 0 if dry else job.result(page_size=rows, retry=retry, job_retry=None)


def maximum(client: bigquery.Client, table: Table, followed: FollowedColumn, most: int) -> str | None:
    """The largest value of an ``int`` or ``text`` column."""
    [[found]] = ask(client, f"SELECT CAST(MAX({DIALECT.quoted([followed.name])}) AS STRING) FROM {table}", [], most)
    return found


def batches(client: bigquery.Client, table: Table, followed: FollowedColumn | None, window: Window, most: int) -> Iterator[pa.Table]:
    """The rows of ``table`` from the window's lower bound on, and those without a cursor value, in no order."""
    context, names = window.context, [column.name for column in table.columns]
    query, values = select(table, followed, window)
    cost = ask(client, query, values, most, dry=True)
    if cost > most:
        raise LimitExceeded(
            f"{table}: this read would be billed for {cost / 10**9:.1f} GB, and maximum_bytes_billed is {most / 10**9:g} GB: raise it, or "
            "read less: fewer columns, or a cursor that the table is partitioned by"
        )
    context.requests += 2
    for found in ask(client, query, values, most, BATCH_ROWS).to_arrow_iterable():
        for start in range(0, found.num_rows, BATCH_ROWS):
            part = found.slice(start, BATCH_ROWS)
            context.pages += 1
            context.bytes_read += part.nbytes
            yield pa.table([_text(part.column(at), column) for at, column in enumerate(table.columns)], names=names)


def select(table: Table, followed: FollowedColumn | None, window: Window) -> tuple[str, list[bigquery.ScalarQueryParameter]]:
    """The statement for the rows that ``window`` asks for, and the values to bind."""
    forms = (_FORMS.get(column.base_type, "CAST({c} AS STRING)").format(c=DIALECT.quoted([column.name])) for column in table.columns)
    query = f"SELECT {', '.join(f'{form} AS c{number}' for number, form in enumerate(forms))} FROM {table}"
    values = []
    if followed is not None and window.lower is not None:
        place = DIALECT.quoted([followed.name])
        query += f" WHERE {place} >= @lower OR {place} IS NULL"
        values = [bigquery.ScalarQueryParameter("lower", _TYPES[followed.kind], _bound(followed, window.lower))]
    return (query if window.limit is None else f"{query} LIMIT {window.limit:d}"), values


def _bound(followed: FollowedColumn, lower: str) -> Any:
    if followed.kind == "text":
        return lower
    if followed.kind == "int":
        return max(min(int(lower), 2**63 - 1), -(2**63))
    if followed.kind == "date":
        return date.fromisoformat(followed.wall(lower))
    return datetime.fromisoformat(lower if followed.kind == "instant" else followed.wall(lower))


def _text(values: pa.Array, column: Column) -> pa.Array:
    texts = pc.cast(values, pa.string())
    if column.base_type not in {"TIMESTAMP", "DATETIME"}:
        return texts
    return pc.replace_substring_regex(pc.replace_substring(texts, " ", "T"), r"\+00(?::00)?$", "Z")
