"""A table of any database: read by window, and tested step by step."""

import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core import cursor as cursors
from identity_pipeline.core.check import CheckStep
from identity_pipeline.core.cursor import Cursor, check_timezone
from identity_pipeline.core.errors import CredentialError, PipelineError, SourceRejected
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers.sql.catalog import Table
from identity_pipeline.readers.sql.cursor import FollowedColumn
from identity_pipeline.readers.sql.engine import Engine, Session
from identity_pipeline.readers.sql.identifier import close_names


@dataclass(frozen=True)
class SqlTable:
    """A table or view of a database. ``columns`` empty: all; ``timezone`` is that of timestamps without one.

    ``id_column`` is read whatever the others are; empty where customary names decide.
    """

    engine: Engine
    table: str
    columns: tuple[str, ...] = ()
    timezone: str = "UTC"
    id_column: str = ""

    def read(self, window: Window) -> Iterator[pa.Table]:
        """Yield the records that ``window`` asks for, in no order, as batches of text.

        Raises:
            PipelineError: the read failed; nothing of it may be committed.
        """
        context = window.context
        with self._open() as session:
            table = self._find(session, context)
            followed = self._follow(table, window.cursor)
            chosen = self._chosen(table, followed)
            context.fields, context.key = tuple(column.name for column in chosen.columns), table.key
            look = session.look(table, followed, window)
            for warning in look.warnings:
                context.warn(warning)
            context.clock(look.clock, look.settled if followed is None else followed.mark_limit(look.settled))
            context.state, context.asked_below = look.state, look.since is not None or look.whole
            if look.whole:
                window = replace(window, lower=None)
            reached = window.lower is None or window.limit is not None or window.cursor_type == "timestamp"
            for batch in session.stream(chosen, followed, window, look.since):
                reached = reached or _reaches(batch, window)
                yield batch
            if not reached and followed and self._ends_below(session, table, followed, window) and look.since is None:
                # what was added below the mark since it was set too high was never read
                context.asked_below = True
                yield from session.stream(chosen, followed, replace(window, lower=None))

    def _ends_below(self, session: Session, table: Table, followed: FollowedColumn, window: Window) -> bool:
        """True, and reported, if the table's largest value is below the window: the mark was too high."""
        maximum = session.maximum(table, followed)
        if maximum is None or _reaches(pa.table({followed.name: pa.array([maximum], pa.string())}), window):
            return False
        window.context.source_maximum = maximum
        window.context.warn(f"nothing in {table} reaches the mark: the mark goes back to the largest {followed.name} there is")
        return True

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
                table = self._chosen(self._find(session, found))
                yield CheckStep(step, True, "; ".join((_permission(table), *found.warnings)))
                step = "sample"
                count = sum(batch.num_rows for batch in session.stream(table, None, Window(limit=20)))
                yield CheckStep(step, True, _sample(table, count, self.id_column))
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

    def _chosen(self, table: Table, followed: FollowedColumn | None = None) -> Table:
        """The table with the columns that are read."""
        if self.id_column:
            table.column(self.id_column, "id_column")
        also = (self.id_column, followed.name if followed else "") if self.columns else ()
        return table.readable(*self.columns, *filter(None, also))

    def _follow(self, table: Table, cursor: Cursor | None) -> FollowedColumn | None:
        """The column of ``cursor``, as what it is in the table."""
        return cursor and table.column(cursor.column, "cursor_column").follow(cursor.type, self.timezone)

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


def _reaches(records: pa.Table, window: Window) -> bool:
    """True if one of ``records`` lies at or above the window's lower bound."""
    if window.cursor is None or window.lower is None or (values := window.cursor.of(records)) is None:
        return False
    lower = cursors.scalar(window.cursor.type, window.lower)
    return lower is not None and bool(pc.any(pc.greater_equal(*cursors.aligned(values, lower))).as_py())


def _permission(table: Table) -> str:
    message = f"may read {table}"
    return f"{message}, and may write it: SELECT is all that is needed" if table.writable else message


def _sample(table: Table, count: int, id_column: str) -> str:
    size = "" if table.estimate is None else f" of about {table.estimate}"
    if id_column:
        key = f"id {id_column}" + ("" if table.key == (id_column,) else ", which is not the primary key: its values have to be unique")
    elif len(table.key) == 1:
        key = f"primary key {table.key[0]}"
    elif table.key:
        key = f"a primary key of {len(table.key)} columns: name a view that makes one of them"
    else:
        key = "no primary key: name a unique column as id_column"
    return f"{count} rows{size}, {len(table.columns)} columns, {key}"
