"""Forgetting a source: its rows, loads, mark and quarantine, all or nothing."""

from psycopg import sql

from identity_pipeline.store import lease


def forget(url: str, source_name: str) -> int:
    """Delete all that the identity database holds of a source, which begins anew then; how many records those were.

    Raises:
        AlreadyRunning: a load of it is at work.
    """
    with lease.free(url, source_name, "", "", wait=0, log=lambda _: None) as connection:
        connection.execute("delete from identity.leases where source_name = %s", (source_name,))
        records = connection.execute("delete from identity.records where source_name = %s", (source_name,)).rowcount
        for table in ("quarantine", "files", "loads", "sources"):  # the parts go with their loads
            statement = sql.SQL("delete from {} where source_name = %s").format(sql.Identifier("identity", table))
            connection.execute(statement, (source_name,))
    return records
