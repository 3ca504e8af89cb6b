"""Which version of each file of a source was read: written by the commit of a load, and by nothing else."""

from collections.abc import Mapping
from dataclasses import astuple, replace

import psycopg

from identity_pipeline.core.file_version import FileVersion
from identity_pipeline.store.load import Load


def known(connection: psycopg.Connection, source_name: str) -> dict[str, FileVersion]:
    """The version of each file that a committed load has read, by the file's name."""
    rows = connection.execute(
        "select object, version, size, modified, sha256, rules, cursor_column, cursor_lower, load_id "
        "from identity.files where source_name = %s",
        (source_name,),
    )
    return {name: FileVersion(*values) for name, *values in rows}


def remember(connection: psycopg.Connection, load: Load, files: Mapping[str, FileVersion]) -> None:
    """Note the versions that ``load`` has read; what is noted of other files stays."""
    if not files:
        return
    rows = ((name, *astuple(replace(version, load_id=load.load_id))) for name, version in files.items())
    columns = [list(column) for column in zip(*rows, strict=True)]
    connection.execute(
        """
        insert into identity.files
            (source_name, object, version, size, modified, sha256, rules, cursor_column, cursor_lower, load_id)
        select %s, * from unnest(
            %s::text[], %s::text[], %s::bigint[], %s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[])
        on conflict (source_name, object) do update set
            (load_id, version, size, modified, sha256, rules, cursor_column, cursor_lower, read_at) =
            (excluded.load_id, excluded.version, excluded.size, excluded.modified, excluded.sha256, excluded.rules,
             excluded.cursor_column, excluded.cursor_lower, statement_timestamp())
        """,
        (load.source_name, *columns),
    )
