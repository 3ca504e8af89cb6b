"""A table of any database: read by window, and tested step by step."""

import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pyarrow as pa

from identity_pipeline.core.check import CheckStep
from identity_pipeline.core.cursor import check_timezone
from identity_pipeline.core.errors import CredentialError, PipelineError, SourceRejected
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers.sql.catalog import Table
from identity_pipeline.readers.sql.engine import Engine, Session
from identity_pipeline.readers.sql.identifier import close_names


@dataclass(frozen=True)
class SqlTable:
    """A table or view of a database. ``columns`` empty: all; ``timezone`` is that of timestamps without one."""

    engine: Engine
    table: str
    columns: tuple[str, ...] = ()
    timezone: str = "UTC"

    def read(self, window: Window) -> Iterator[pa.Table]:
        """Yield the records that ``window`` asks for, in no order, as batches of text.

        Raises:
            PipelineError: the read failed; nothing of it may be committed.
        """
        with self._open() as session:
            table = self._find(session, window.context)
            now, followed = session.clock(), None
            if window.cursor is not None:
                column = table.column(window.cursor.column, "cursor_column")
                followed = column.follow(window.cursor.type, self.timezone)
                now = followed.mark_limit(now)
            also = (followed.name,) if followed and self.columns else ()
            window.context.clock(now)
            yield from session.stream(table.readable(*self.columns, *also), followed, window)

    def check(self) -> Iterator[CheckStep]:
        """Yield the steps of a connection test, up to the first that fails."""
        step, asked, found = "reach", False, ReadContext()
        try:
            opening = self._open()
            asked = True
            with opening as session:
                yield CheckStep(step, True, session.server())
                step = "authenticate"
                yield CheckStep(step, True, session.role())
                step = "permission"
                table = self._find(session, found).readable(*self.columns)
                yield CheckStep(step, True, "; ".join((_permission(table), *found.warnings)))
                step = "sample"
                count = sum(batch.num_rows for batch in session.stream(table, None, Window(limit=20)))
                yield CheckStep(step, True, _sample(table, count))
        except PipelineError as error:
            if step == "reach" and asked and isinstance(error, CredentialError):
                yield CheckStep(step, True, "the server answers")
                step = "authenticate"
            yield CheckStep(step, False, str(error))

    def _open(self) -> AbstractContextManager[Session]:
        """A session; all settings are judged before anything is sent."""
        check_timezone(self.timezone)
        self.engine.dialect.readings(self.table)
        return self.engine.open()

    def _find(self, session: Session, context: ReadContext) -> Table:
        """The table that the user named, with all its columns; ``context`` is warned of what may surprise in it."""
        dialect = self.engine.dialect
        readings = dialect.readings(self.table)
        table = next(filter(None, map(session.table, readings)), None)
        if table is None:
            wanted, known = dialect.quoted(readings[0]), map(dialect.quoted, session.tables(readings[0]))
            raise SourceRejected(f"table: there is no {wanted}; of those that the user may read, {close_names(wanted, known)}")
        if _composed(str(table)) != _composed(self.table):
            context.warn(f"{table} looks as the setting table but is another Unicode form of it: copy the name from the database")
        if table.rows_hidden:
            context.warn(
                f"{table}: row-level security decides which rows this user sees; what it hides is not loaded, and is marked "
                "deleted by a full refresh: read as a user who sees all rows"
            )
        return table


def _composed(name: str) -> bool:
    return unicodedata.is_normalized("NFC", name)


def _permission(table: Table) -> str:
    message = f"may read {table}"
    return f"{message}, and may write it: SELECT is all that is needed" if table.writable else message


def _sample(table: Table, count: int) -> str:
    size = "" if table.estimate is None else f" of about {table.estimate}"
    if len(table.key) == 1:
        key = f"primary key {table.key[0]}"
    elif table.key:
        key = f"a primary key of {len(table.key)} columns: name a view that makes one of them"
    else:
        key = "no primary key: name a unique column under mapping, external_id"
    return f"{count} rows{size}, {len(table.columns)} columns, {key}"
