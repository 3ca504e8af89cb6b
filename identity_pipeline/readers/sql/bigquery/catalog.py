"""What BigQuery says of a table."""

from collections.abc import Iterator

from google.api_core import exceptions
from google.cloud import bigquery

from identity_pipeline.core.errors import PermissionDenied
from identity_pipeline.readers.sql.bigquery.names import DIALECT
from identity_pipeline.readers.sql.catalog import Column, Table
from identity_pipeline.readers.sql.cursor import CursorKind

_READ, _WRITE = "bigquery.tables.getData", "bigquery.tables.updateData"
_KINDS: dict[str, CursorKind] = {
    "INTEGER": "int", "INT64": "int", "TIMESTAMP": "instant", "DATETIME": "local", "DATE": "date", "STRING": "text",
}  # fmt: skip


def find(client: bigquery.Client, name: tuple[str, ...]) -> Table | None:
    """The table or view of exactly this name, with all its columns; None if there is none.

    Raises:
        PermissionDenied: it may not be read.
    """
    try:
        found = client.get_table(bigquery.TableReference.from_api_repr(dict(zip(("projectId", "datasetId", "tableId"), name, strict=True))))
    except exceptions.NotFound:
        return None
    rights = client.test_iam_permissions(found, [_READ, _WRITE]).get("permissions", [])
    key = found.table_constraints.primary_key.columns if found.table_constraints and found.table_constraints.primary_key else ()
    columns = tuple(_column(column, in_key=column.name in key) for column in found.schema)
    table = Table(name=name, columns=columns, estimate=found.num_rows, writable=_WRITE in rights, dialect=DIALECT)
    if _READ not in rights:
        raise PermissionDenied(f"{table}: give the account BigQuery Data Viewer on the table or its dataset")
    return table


def neighbours(client: bigquery.Client, name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The tables of that dataset; none if there is no such dataset."""
    try:
        for item in client.list_tables(bigquery.DatasetReference(*name[:2]), max_results=1000):
            yield (*name[:2], item.table_id)
    except exceptions.NotFound:
        return


def _column(column: bigquery.SchemaField, *, in_key: bool) -> Column:
    repeated = column.mode == "REPEATED"
    base_type = "ARRAY" if repeated else column.field_type
    collated = bool(column.to_api_repr().get("collation"))  # it orders texts otherwise than by their bytes
    declared = f"ARRAY<{column.field_type}>" if repeated else f"{base_type} COLLATE" if collated else base_type
    return Column(column.name, declared, base_type, None if collated else _KINDS.get(base_type), in_key=in_key)
