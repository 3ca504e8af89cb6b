"""What a database's catalog says of a table: its own spelling, columns, types, key, permissions."""

from dataclasses import dataclass, field, replace

from identity_pipeline.core.cursor import CursorType
from identity_pipeline.core.errors import ConfigurationError, PermissionDenied, SourceRejected
from identity_pipeline.readers.sql.cursor import CURSOR_TYPES, CursorKind, FollowedColumn
from identity_pipeline.readers.sql.identifier import Dialect, close_names


@dataclass(frozen=True)
class Column:
    """A column, spelled as in the catalog.

    ``declared_type`` is what a person declared it as, ``base_type`` the engine's own type under it
    (no domain, no length). ``cursor_kind`` None: its values have no order to follow.
    """

    name: str
    declared_type: str
    base_type: str
    cursor_kind: CursorKind | None
    readable: bool = True
    in_key: bool = False

    def follow(self, cursor_type: CursorType, timezone: str) -> FollowedColumn:
        """The column as the cursor of a load.

        Raises:
            ConfigurationError: the source's ``cursor_type`` is not what the column holds.
        """
        declared = f"cursor_column {self.name!r} is of type {self.declared_type}"
        if self.cursor_kind is None:
            raise ConfigurationError(f"{declared}, which is no cursor: name a column of integers, timestamps, dates or text")
        if (found := CURSOR_TYPES[self.cursor_kind]) != cursor_type:
            raise ConfigurationError(f"{declared}, but cursor_type is {cursor_type}: set cursor_type: {found}")
        return FollowedColumn(self.name, self.cursor_kind, self.base_type, timezone)


@dataclass(frozen=True)
class Table:
    """A table or view that is there, and its columns.

    ``name`` is the full name, outermost part first. ``estimate`` is a rough count of its rows,
    ``rows_hidden`` says that a policy of the server decides which of them the user sees.
    """

    name: tuple[str, ...]
    columns: tuple[Column, ...]
    estimate: int | None = None
    writable: bool = False
    rows_hidden: bool = False
    dialect: Dialect = field(kw_only=True, repr=False)

    def __str__(self) -> str:
        return self.dialect.quoted(self.name)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the primary key that were asked for."""
        return tuple(column.name for column in self.columns if column.in_key)

    def column(self, name: str, setting: str) -> Column:
        """The column of exactly this name.

        Raises:
            ConfigurationError: there is none; the message names ``setting``.
        """
        for column in self.columns:
            if column.name == name:
                return column
        close = close_names(name, (column.name for column in self.columns))
        raise ConfigurationError(f"{setting}: {self} has no column {name!r}; {close}")

    def readable(self, *names: str) -> "Table":
        """The table with the columns ``names``, or with all, each of which may be read.

        Raises:
            ConfigurationError: a column is not there.
            SourceRejected: there is no column at all.
            PermissionDenied: one of them may not be read.
        """
        columns = tuple(dict.fromkeys(self.column(name, "columns") for name in names)) or self.columns
        if not columns:
            raise SourceRejected(f"{self} has no columns: name a table or view that has")
        if hidden := [column.name for column in columns if not column.readable]:
            every = len(hidden) == len(columns)
            raise PermissionDenied(
                f"{self}: GRANT SELECT ON {self} TO the user of the connection"
                + ("" if every else f", which may not read {', '.join(map(repr, hidden))}, or list the other columns")
            )
        return replace(self, columns=columns)
