"""Late commits: rows that become visible below the mark, because a row's time or number is older than its commit.

The mark stays behind the start of every transaction that is writing while a load looks: the rows that it
brings carry a time after that. InnoDB shows them to a user with the privilege PROCESS. Where that does not
do, the connector's overlap has to outlast the longest transaction, and the load warns and says what is open:

- Without PROCESS nothing is shown.
- A number or a text does not tell when it was made.
- On a replica, and in a Galera cluster, rows were written where nobody here sees the transaction.
- A transaction that was prepared in two phases may be older than it looks: a restart sets its start anew.

A transaction that has not written counts as long as a statement of it runs. What it writes later carries a
later time: MySQL's NOW() is that of the statement.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from pymysql import err

from identity_pipeline.readers.sql.catalog import Table
from identity_pipeline.readers.sql.cursor import FollowedColumn
from identity_pipeline.readers.sql.engine import Look
from identity_pipeline.readers.sql.mysql.wire import Connection

# Seconds are cut off a start, and what began within the last 0.1 seconds is not shown yet.
_GRAIN = timedelta(seconds=1)
_CACHED = 0.15
"""Longer than InnoDB shows the same list, in seconds."""
# A start is shown in the zone of the server's machine, whatever that of the session is.
_WRITERS = """
    SELECT coalesce(sum(own), 0) AS own, coalesce(sum(writing), 0) AS writing, coalesce(sum(prepared), 0) AS prepared,
           min(CASE WHEN writing THEN convert_tz(started, 'SYSTEM', '+00:00') END) AS oldest
    FROM (
        SELECT trx_mysql_thread_id = connection_id() AS own, trx_started AS started, trx_mysql_thread_id = 0 AS prepared,
               trx_mysql_thread_id <> connection_id() AND (trx_rows_modified > 0 OR trx_query IS NOT NULL) AS writing
        FROM information_schema.innodb_trx
    ) AS open
"""
_REMOTE = "SHOW GLOBAL VARIABLES WHERE variable_name IN ('read_only', 'super_read_only', 'wsrep_on') AND value = 'ON'"
_FORBIDDEN = 1227


def look(connection: Connection, table: Table, followed: FollowedColumn | None) -> Look:
    """How this read does not miss what is committed late."""
    clock = connection.ask("SELECT utc_timestamp(6) AS now")[0]["now"].replace(tzinfo=UTC)
    if followed is None:
        return Look(clock, clock)
    writers = _writers(connection)
    unprotected = _unprotected(table, followed, writers, remote=bool(connection.ask(_REMOTE)), clock=clock)
    started = [writers["oldest"].replace(tzinfo=UTC)] if writers and writers["oldest"] else []
    return Look(clock, min([clock - _GRAIN, *started]), warnings=(unprotected,) if unprotected else ())


def _writers(connection: Connection) -> dict[str, Any] | None:
    """What InnoDB shows of open transactions; None if it does not show them to this user."""
    connection.ask("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    try:
        for wait in (0, _CACHED):
            time.sleep(wait)
            [found] = connection.ask(_WRITERS)
            if found["own"]:
                return found
    except err.Error as error:
        if error.args[0] != _FORBIDDEN:
            raise
    finally:
        connection.ask("COMMIT")
    return None


def _unprotected(table: Table, followed: FollowedColumn, writers: dict[str, Any] | None, *, remote: bool, clock: datetime) -> str | None:
    counted = followed.kind in {"int", "text"}
    if writers is None:
        why, remedy = "it is not shown which transactions are open", "GRANT PROCESS ON *.* TO the user of the connection"
    elif remote:
        why, remedy = "the server also has rows that were written on another", "read the server that they are written on"
    elif writers["prepared"]:
        why, remedy = f"{writers['prepared']} transactions are prepared and not committed", "commit them or roll them back"
    elif counted and writers["writing"]:
        age = int((clock - writers["oldest"].replace(tzinfo=UTC)).total_seconds())
        why = f"{writers['writing']} transactions are writing, the oldest for {max(age, 0)} seconds"
        remedy = "follow a time instead"
    else:
        return None
    overlap = "" if followed.kind == "text" else ", or set an overlap as long as the longest transaction"
    return f"{table}: a row that is committed long after the {followed.name} it carries can be missed, since {why}: {remedy}{overlap}"
