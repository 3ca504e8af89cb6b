"""What a connector is: settings, strategies as class values, a field map and ``read``.

Family bases hold what a family shares (``read``, ``check`` and the client):
:class:`RestConnector`, :class:`FileConnector` (with :class:`StorageConnector` for stores of many
files) and :class:`SqlConnector`. A connector says what is its vendor's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from typing import Any, ClassVar

import dagster as dg
from pydantic import ConfigDict, Field, PrivateAttr

from identity_pipeline.core.check import CheckStep
from identity_pipeline.core.cursor import (
    ISO,
    Cursor,
    CursorType,
    Order,
    Reading,
    check_format,
    check_timezone,
)
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.secret import Credential, Env, Reference, TokenProvider
from identity_pipeline.core.text import Batch
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers import files, names, rest
from identity_pipeline.readers.sql.engine import Engine
from identity_pipeline.readers.sql.table import SqlTable

ENDING = timedelta(days=90)
"""So long before the end of an API version there is a warning."""

CHECK_BUDGET, CHECK_ATTEMPTS = 5.0, 5
"""Seconds that a connection test may spend on asking again and waiting, and how often it asks."""


@dataclass(frozen=True)
class CursorColumn:
    """A field that can be the cursor.

    ``overlap`` is subtracted from the mark before each read: seconds for ``timestamp``, numbers for
    ``int``; text has none. ``type`` None leaves it to the source's ``cursor_type``. ``filtered_by``
    says who leaves out older records: ``source`` (asked for the window) or ``us`` (reads all, keeps
    some). ``reading`` is how the values are written. ``in_records`` False: only the request knows
    the cursor, no record carries it.
    """

    type: CursorType | None
    overlap: float = 0
    filtered_by: str = "source"
    reading: Reading = ISO
    in_records: bool = True


@dataclass(frozen=True)
class Setting:
    """One setting, for any form: ``type`` in words, ``default`` None where there is none."""

    name: str
    type: str
    help: str
    required: bool
    default: Any
    secret: bool


class Secret(dg.Config):
    """A setting that is a secret: shown, it says where that is kept; in a run it leads to it.

    It is a :class:`~identity_pipeline.core.secret.TokenProvider` once it is bound to one.
    """

    env: str = Field(default="", description="Name of the environment variable that holds it")
    credential: str = Field(
        default="", description="Name under which the credential store holds it"
    )
    _provider: TokenProvider | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, reference: Reference) -> "Secret":
        """The setting that names this place."""
        return (
            cls(env=reference.name)
            if isinstance(reference, Env)
            else cls(credential=reference.name)
        )

    @classmethod
    def bound(cls, reference: Reference, provider: TokenProvider) -> "Secret":
        """The setting of that place, with the way to what is kept there."""
        made = cls.of(reference)
        made._provider = provider  # noqa: SLF001 - its own class
        return made

    @property
    def reference(self) -> Reference:
        """Where it is kept."""
        return Env(self.env) if self.env else Credential(self.credential)

    def token(self) -> str:
        """The secret as it is now.

        Raises:
            CredentialError: there is none that can be used.
        """
        return self._bound().token()

    def refresh(self) -> str | None:
        """A new secret after the source refused the present one; None if there is no other."""
        return self._bound().refresh()

    def learn(self, secret: str) -> None:
        """Redact ``secret`` too, which was got with this one, from now on."""
        self._bound().learn(secret)

    def _bound(self) -> TokenProvider:
        if self._provider is None:
            raise ConfigurationError(
                f"the secret {self.reference} is not looked up here: only a run does that"
            )
        return self._provider


def setting(description: str, **options: Any) -> Any:
    """A setting; ``options`` are pydantic's (``default``, ``ge``, ``pattern``, …)."""
    return Field(description=description, **options)


class Connector(dg.ConfigurableResource):
    """Base of all connectors. A subclass declares settings as fields and the values below.

    ``cursor_columns`` maps a field to how it works as a cursor; ``"*"`` stands for any field.
    """

    # A value that comes from the environment is validated when a run starts: its error must not
    # quote it.
    model_config = ConfigDict(hide_input_in_errors=True)

    group: ClassVar[str]
    """Asset group: ``sql``, ``files``, ``oauth`` or ``api``."""
    vendor: ClassVar[str]
    """Kind shown in the UI, lower case."""
    field_map: ClassVar[FieldMap]
    cursor_columns: ClassVar[Mapping[str, CursorColumn]] = {}
    api_versions: ClassVar[Mapping[str, str]] = {}
    """Values of the setting ``api_version`` → the day (ISO 8601) on which the vendor ends each."""
    retiring: ClassVar[Mapping[str, tuple[str, str, str]]] = {}
    """Setting → what the vendor ends that it is for, the day (ISO 8601), what to do until then."""
    order: ClassVar[Order] = "oldest_first"
    """Order of a record's versions in the stream: of two with one cursor value the newer stays."""
    reads_whole: ClassVar[bool] = False
    """True if a read that ends is known to be whole, so that one absence proves a deletion."""
    reads_snapshot: ClassVar[bool] = False
    """True if a read shows each record as it is now: a later one is newer, whatever its cursor."""

    lists_files: ClassVar[bool] = False
    """True if it reads files that a store lists, so that a sensor sees them arrive."""
    id_setting: ClassVar[str] = ""
    """The setting that names the field of a record's id, where there is one."""

    def read(self, window: Window) -> Iterator[Batch]:
        """Yield batches of the records that ``window`` asks for, as frames or Arrow tables.

        Bounded memory: a batch is at most some 50,000 rows or 64 MB. A record that cannot be
        read carries its reason under ``fieldmap.REJECTED``; it is never left out.

        Raises:
            PipelineError: the read as a whole failed; what was yielded is then not committed.
        """
        raise NotImplementedError

    def check(self) -> Iterator[CheckStep]:
        """Test the connection, one step at a time; stops after the first step that fails."""
        raise NotImplementedError

    def ending(self, today: date) -> str | None:
        """What to do about what the vendor ends within 90 days, or has ended; None: nothing."""
        ends = [found for name, found in self.retiring.items() if getattr(self, name)]
        version = getattr(self, "api_version", "")
        if day := self.api_versions.get(version):
            ends.append((f"version {version} of its API", day, "set api_version to a later one"))
        for what, day, advice in ends:
            if (end := date.fromisoformat(day)) - today <= ENDING:
                verb = "ends" if end > today else "ended"
                return f"{self.vendor} {verb} {what} on {end}: {advice}"
        return None

    @property
    def timezone(self) -> str:
        """Time zone of a record's times that have none."""
        return "UTC"

    def judge(self) -> None:
        """Refuse settings that cannot be, without asking anybody."""
        self.timezone  # noqa: B018 - judged where it is read

    def cursor_reading(self, column: CursorColumn) -> Reading:
        """How a cursor's values are written: as its column says, unless settings decide."""
        return column.reading

    def cursor(self, column: str, cursor_type: CursorType) -> Cursor:
        """The cursor on ``column``, which is one of ``cursor_columns``."""
        declared = self.cursor_columns.get(column) or self.cursor_columns["*"]
        return Cursor(column, cursor_type, self.cursor_reading(declared), declared.in_records)

    def __repr__(self) -> str:
        """Name only: the generated one would print resolved values."""
        return f"{type(self).__name__}(…)"

    __str__ = __repr__

    @classmethod
    def source_type(cls) -> str:
        """The source type: the name of the module."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    @cache
    def settings(cls) -> list[Setting]:
        """The settings, in the order of their declaration."""
        schema = cls.model_json_schema()
        required = set(schema.get("required", ()))
        return [
            Setting(
                name,
                "secret" if (secret := _is_secret(body)) else _type_of(body),
                body.get("description", ""),
                name in required,
                body.get("default"),
                secret,
            )
            for name, body in schema["properties"].items()
        ]


def _is_secret(body: Mapping[str, Any]) -> bool:
    return any(
        each.get("$ref", "").endswith("/Secret")
        for each in (body, *body.get("anyOf", ()), *body.get("allOf", ()))
    )


def _type_of(body: Mapping[str, Any]) -> str:
    if "enum" in body:
        return " | ".join(map(str, body["enum"]))
    if "anyOf" in body:
        return " | ".join(
            _type_of(option) for option in body["anyOf"] if option.get("type") != "null"
        )
    if body.get("type") == "array":
        return f"list of {_type_of(body.get('items', {}))}"
    return str(body.get("type", "object"))


class RestConnector(Connector):
    """A vendor's HTTP API that answers JSON in pages.

    A subclass says ``base_url``, ``auth()`` and ``pages()``; ``headers()``, ``errors``,
    ``interval`` (seconds between two requests) and ``limits`` where the vendor has its own.
    """

    group: ClassVar[str] = "api"
    errors: ClassVar[rest.ErrorBody] = rest.ErrorBody(())
    interval: ClassVar[float] = 0.0
    limits: ClassVar[tuple[rest.Limit, ...]] = ()
    base_url: str

    def address(self) -> str:
        """Where the API is: as ``base_url`` says, unless other settings lead there."""
        return self.base_url

    def auth(self) -> rest.Auth:
        """How a request proves who asks."""
        raise NotImplementedError

    def headers(self) -> Mapping[str, str]:
        """What else the vendor wants with each request."""
        return {}

    def pages(self, client: rest.Client, window: Window) -> Iterator[Sequence[rest.Record]]:
        """Yield the records that ``window`` asks for, page by page, as the vendor gives them."""
        raise NotImplementedError

    def read(self, window: Window) -> Iterator[Batch]:
        """Yield what :meth:`pages` yields, in batches of text."""
        client = self.client(window.context)
        pages = self.pages(client, window)
        column = self.cursor_columns.get(window.cursor_column or "")
        if column and column.filtered_by == "source":
            pages = rest.filtered(pages, window)
        return rest.batches(pages, window, client.received)

    def check(self) -> Iterator[CheckStep]:
        """Test the connection by reading a first page."""
        window = Window(limit=1)

        def first_page() -> Sequence[rest.Record]:
            client = self.client(window.context)
            hasty = replace(client, retry_budget=CHECK_BUDGET, attempts=CHECK_ATTEMPTS)
            return next(self.pages(hasty, window), ())

        return rest.check(first_page, window.context.warnings)

    def client(self, context: ReadContext) -> rest.Client:
        """A client that asks as the vendor wants to be asked."""
        return rest.Client(
            self.address(),
            self.auth(),
            context,
            self.errors,
            self.headers(),
            interval=self.interval,
            limits=self.limits,
        )


class FileConnector(Connector):
    """CSV files of a store. A subclass says :meth:`store`."""

    group: ClassVar[str] = "files"
    field_map: ClassVar[FieldMap] = names.HEADERS
    cursor_columns: ClassVar[Mapping[str, CursorColumn]] = {
        "*": CursorColumn(type=None, filtered_by="us")
    }
    reads_whole: ClassVar[bool] = True

    delimiter: str = setting(
        "Delimiter between cells: one character, or tab. Empty: found out among , ; tab |",
        default="",
    )
    encoding: str = setting(
        "Encoding of the file, such as cp1252. Empty: byte order mark, server, UTF-8, cp1252.",
        default="",
    )
    quote: str = setting("Quote around cells that hold a delimiter. Empty: none.", default='"')
    escape: str = setting("Escape character, such as \\. Empty: none.", default="")
    header: bool = setting(
        "False if the first row is a record: the columns are column_1, column_2, … then.",
        default=True,
    )
    skip_lines: int = setting(
        "Lines above the header that do not belong to the table.", default=0, ge=0, le=1000
    )
    cursor_format: str = setting(
        "How the cursor column writes time, as for strptime: %d.%m.%Y %H:%M. Empty: ISO 8601.",
        default="",
    )
    cursor_timezone: str = setting(
        "Time zone of times that have none, such as Europe/Berlin.", default="UTC"
    )
    max_bytes: int = setting(
        "A larger file, unpacked, is refused.", default=files.MAX_BYTES, ge=1, le=2_000_000_000
    )

    def store(self, context: ReadContext) -> files.Store:
        """The store that holds the files."""
        raise NotImplementedError

    def judge(self) -> None:
        """Refuse a dialect, a format or a time zone that cannot be."""
        self.reading()

    def read(self, window: Window) -> Iterator[Batch]:
        """Yield the rows of the files that changed since the window's last look at them."""
        return self._records(window, files.RETRY_BUDGET)

    def _records(self, window: Window, retry_budget: float) -> Iterator[Batch]:
        reading = self.reading(
            retry_budget
        )  # a setting that cannot be is said before anything is asked
        return files.read_files(self.store(window.context), reading, window)

    def check(self) -> Iterator[CheckStep]:
        """Test the way to the first rows, step by step."""
        return files.check(lambda: self._records(Window(limit=1), CHECK_BUDGET))

    @property
    def timezone(self) -> str:
        """The time zone that is set."""
        return check_timezone(self.cursor_timezone)

    def cursor_reading(self, column: CursorColumn) -> Reading:  # noqa: ARG002 - all alike
        """Times as ``cursor_format`` and ``cursor_timezone`` say."""
        return Reading(
            self.timezone,
            check_format(self.cursor_format) if self.cursor_format else None,
        )

    def reading(self, retry_budget: float = files.RETRY_BUDGET) -> files.Reading:
        """How the files are read."""
        dialect = files.Dialect(
            self.delimiter or None,
            self.encoding or None,
            self.quote,
            self.escape or None,
            self.header,
            self.skip_lines,
        )
        rules = repr(self.cursor_reading(self.cursor_columns["*"]))
        return files.Reading(dialect, rules, max_bytes=self.max_bytes, retry_budget=retry_budget)


class StorageConnector(FileConnector):
    """CSV files of a store that lists them. A subclass says :meth:`store`."""

    lists_files: ClassVar[bool] = True

    prefix: str = setting(
        "What the names of the files begin with, such as exports/crm/.", default=""
    )
    glob: str = setting(
        "Pattern of the names behind the prefix: * within a folder, ** through all of them. What "
        "begins with _ or . is read only where the pattern has that character: _*.csv.",
        default="**",
        min_length=1,
    )
    contents: files.Contents = setting(
        "What a file holds. changes: records that are new or changed; what is in no file is not "
        "deleted. everything: the file modified last is the whole truth, and what it does not hold "
        "is deleted.",
        default="changes",
    )
    file_fields: bool = setting(
        "True: each record says which file it stands in (_file, _file_version, _file_modified). "
        "A file that is written anew then changes all of its records.",
        default=False,
    )

    @property
    def reads_snapshot(self) -> bool:  # type: ignore[override] - here a setting decides
        """A file that is the whole truth shows each record as it is now."""
        return self.contents == "everything"

    def names(self) -> files.Glob:
        """The names of the files."""
        return files.Glob(self.prefix, self.glob)

    def unread(self, window: Window) -> list[files.Entry]:
        """The files that a load of this window would read."""
        return files.unread(self.store(window.context), self.reading(CHECK_BUDGET), window)

    def reading(self, retry_budget: float = files.RETRY_BUDGET) -> files.Reading:
        """How the files are read."""
        return replace(
            super().reading(retry_budget),
            contents=self.contents,
            file_fields=self.file_fields,
        )


class SqlConnector(Connector):
    """A table or view of a database. A subclass says :meth:`engine` and ``table``."""

    group: ClassVar[str] = "sql"
    field_map: ClassVar[FieldMap] = names.COLUMNS
    reads_whole: ClassVar[bool] = True
    reads_snapshot: ClassVar[bool] = True
    id_setting: ClassVar[str] = "id_column"
    table: str
    id_column: str = setting(
        "Column of each person's id, spelled as in the database. Empty: the first customary one.",
        default="",
        max_length=300,
    )
    columns: list[str] = setting(
        "Only these columns, spelled as in the database, with id_column and cursor. Empty: all.",
        default=[],
    )
    cursor_timezone: str = setting(
        "Time zone of timestamps that have none, such as Europe/Berlin.", default="UTC"
    )

    def engine(self) -> Engine:
        """The database."""
        raise NotImplementedError

    def read(self, window: Window) -> Iterator[Batch]:
        """Yield the rows from the window's lower bound on, as one snapshot."""
        return self._table().read(window)

    def check(self) -> Iterator[CheckStep]:
        """Test the way to the table, step by step."""
        return self._table().check()

    @property
    def timezone(self) -> str:
        """The time zone that is set."""
        return check_timezone(self.cursor_timezone)

    def cursor_reading(self, column: CursorColumn) -> Reading:  # noqa: ARG002 - all alike
        """Timestamps without a zone are wall clock in ``cursor_timezone``."""
        return Reading(self.timezone)

    def _table(self) -> SqlTable:
        columns = tuple(self.columns)
        return SqlTable(self.engine(), self.table, columns, self.cursor_timezone, self.id_column)
