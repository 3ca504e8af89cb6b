"""The landing: where the batches of a load wait, as compressed Arrow files, until they are merged.

``<landing>/<source>/<load_id>/part-0-00000/000000.arrow``; in ``seen-000000.arrow`` is noted what was
held back because it is stored as it is. A part is some 500,000 records (or
256 MB of text) of one shard, merged in one transaction; a file holds record batches of one schema.
The address may be a folder or any URL that Arrow's file systems know (``s3://``, ``gs://``). Files
hold personal data: folders are made with mode 0700 and removed when their load is committed or given
up.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.fs as pafs

from identity_pipeline.core.errors import LandedPartLost, TargetUnavailable
from identity_pipeline.store.rejection import PLACE

BATCH_ROWS = 10_000
PART_ROWS = 500_000
PART_BYTES = 256 * 2**20
_GATHER_ROWS = 5_000
_NOTED_ROWS = 100_000
_SEEN = "seen-"


@dataclass(frozen=True, order=True)
class Part:
    """What one merge transaction holds: the part of this ``number`` of one ``shard`` of a read.

    Their order is that of the stream, within a shard.
    """

    shard: int
    number: int

    def __str__(self) -> str:
        return f"{self.shard}-{self.number:05d}"


@dataclass(frozen=True)
class LandedPart:
    """A part that was landed, and how many records it holds."""

    part: Part
    records: int


def make_folder(system: pafs.FileSystem, folder: str) -> None:
    """Make a folder that only we can read."""
    if isinstance(system, pafs.LocalFileSystem):
        for level in (*reversed(Path(folder).parents), Path(folder)):
            level.mkdir(mode=0o700, exist_ok=True)
    else:
        system.create_dir(folder, recursive=True)


@dataclass(frozen=True)
class Landing:
    """One landing place. ``url`` is a folder or a URL."""

    url: str

    def at(self, *names: str) -> tuple[pafs.FileSystem, str]:
        """The file system of the landing place and a path below it."""
        if "://" not in self.url:
            return pafs.LocalFileSystem(), "/".join((self.url.rstrip("/"), *names))
        system, path = pafs.FileSystem.from_uri(self.url)
        return system, "/".join((path.rstrip("/"), *names))

    def writer(self, source_name: str, load_id: int, shard: int = 0) -> "LandingWriter":
        """Start to land the batches of one shard of a load."""
        return LandingWriter(self, source_name, load_id, shard)

    def tables(self, source_name: str, load_id: int, part: Part, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The batches of one part, at most :data:`BATCH_ROWS` rows each.

        With ``columns`` only these, where a batch has them, and also of what was held back.

        Raises:
            LandedPartLost: the part is gone (its load was committed or given up), or a file of it is not whole.
            TargetUnavailable: a remote landing place does not answer.
        """
        system, folder = self.at(source_name, str(load_id), f"part-{part}")
        try:
            for info in sorted(system.get_file_info(pafs.FileSelector(folder)), key=lambda info: info.path):
                if columns is not None or not info.base_name.startswith(_SEEN):
                    yield from _batches(system, info.path, columns)
        except FileNotFoundError:
            fault = "is gone"
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and not isinstance(system, pafs.LocalFileSystem):
                raise TargetUnavailable(
                    f"{source_name}: the landed part {part} of load {load_id} cannot be read ({type(error).__name__}): run it again"
                ) from None
            fault = f"was cut short or damaged ({type(error).__name__})"
        else:
            return
        raise LandedPartLost(f"{source_name}: the landed part {part} of load {load_id} {fault}: materialize again from the start")

    def whole(self, source_name: str, load_id: int, columns: list[str]) -> Iterator[tuple[Part, pa.Table]]:
        """Columns of all batches of a load, each with its part, also of what was held back."""
        system, folder = self.at(source_name, str(load_id))
        for info in sorted(system.get_file_info(pafs.FileSelector(folder, allow_not_found=True)), key=lambda info: info.path):
            shard, number = info.base_name.removeprefix("part-").split("-")
            part = Part(int(shard), int(number))
            for table in self.tables(source_name, load_id, part, columns):
                yield part, table

    def remove(self, source_name: str, load_id: int) -> None:
        """Delete what a load landed. Nothing happens if there is nothing."""
        self._delete(*self.at(source_name, str(load_id)))

    def remove_part(self, source_name: str, load_id: int, part: Part) -> None:
        """Delete one part."""
        self._delete(*self.at(source_name, str(load_id), f"part-{part}"))

    def remove_others(self, source_name: str, load_id: int) -> None:
        """Delete what earlier loads of a source left behind."""
        system, folder = self.at(source_name)
        for info in system.get_file_info(pafs.FileSelector(folder, allow_not_found=True)):
            if info.base_name != str(load_id):
                self._delete(system, info.path)

    @staticmethod
    def _delete(system: pafs.FileSystem, path: str) -> None:
        with suppress(FileNotFoundError):  # removed by an earlier try
            system.delete_dir(path)


def _batches(system: pafs.FileSystem, path: str, columns: list[str] | None) -> Iterator[pa.Table]:
    with system.open_input_file(path) as stream:
        file = pa.ipc.open_file(stream)
        if columns is not None:
            wanted = [n for n, name in enumerate(file.schema.names) if name in columns]
            file = pa.ipc.open_file(stream, options=pa.ipc.IpcReadOptions(included_fields=wanted))
        for number in range(file.num_record_batches):
            yield pa.Table.from_batches([file.get_batch(number)])


@dataclass
class LandingWriter:
    """Gathers the batches of one shard into files and parts. A context manager.

    ``parts`` are those that are finished. When the body fails they go, and so does the one at work;
    other shards' stay.
    """

    landing: Landing
    source_name: str
    load_id: int
    shard: int = 0
    parts: list[LandedPart] = field(default_factory=list)
    fields: dict[str, None] = field(default_factory=dict)
    _waiting: list[pa.Table] = field(default_factory=list)
    _noted: list[pa.Table] = field(default_factory=list)
    _waiting_rows: int = 0
    _rows: int = 0
    _bytes: int = 0
    _files: int = 0

    @property
    def _part(self) -> Part:
        """The part at work."""
        return Part(self.shard, len(self.parts))

    def write(self, table: pa.Table) -> None:
        """Land one batch of text.

        Raises:
            TargetUnavailable: the landing place is full or cannot be written.
        """
        self.fields.update((name, None) for name in table.column_names if name != PLACE)
        if not table.num_rows:
            return
        if self._waiting and (self._waiting[0].schema != table.schema or self._waiting_rows >= _GATHER_ROWS):
            self._flush()
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= PART_ROWS or self._bytes >= PART_BYTES:
            self._end_part()

    def note(self, table: pa.Table) -> None:
        """Keep what is to be known of records that are not landed.

        Raises:
            TargetUnavailable: the landing place is full or cannot be written.
        """
        if self._noted and (self._noted[0].schema != table.schema or sum(t.num_rows for t in self._noted) >= _NOTED_ROWS):
            self._flush_noted()
        self._noted.append(table)

    def _flush(self) -> None:
        tables, self._waiting, self._waiting_rows = self._waiting, [], 0
        self._write(tables, "")

    def _flush_noted(self) -> None:
        tables, self._noted = self._noted, []
        self._write(tables, _SEEN)

    def _write(self, tables: list[pa.Table], prefix: str) -> None:
        if not tables:
            return
        table = pa.concat_tables(tables).combine_chunks()
        system, folder = self.landing.at(self.source_name, str(self.load_id), f"part-{self._part}")
        try:
            make_folder(system, folder)
            path = f"{folder}/{prefix}{self._files:06d}.arrow"
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            with system.open_output_stream(path) as stream, pa.ipc.new_file(stream, table.schema, options=options) as file:
                file.write_table(table, max_chunksize=BATCH_ROWS)
        except OSError as error:
            raise TargetUnavailable(
                f"{self.source_name}: landing at {self.landing.url.partition('?')[0]} failed ({type(error).__name__}, "
                f"errno {error.errno}): free space or make it writable (IDENTITY_LANDING_URL), then run again; nothing was merged"
            ) from None
        self._files += 1

    def _end_part(self) -> None:
        self._flush()
        self._flush_noted()
        if self._rows:
            self.parts.append(LandedPart(self._part, self._rows))
        self._rows = self._bytes = self._files = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._end_part()
                return
        except BaseException:
            self._give_up()
            raise
        self._give_up()

    def _give_up(self) -> None:
        self._waiting, self._noted = [], []
        for part in (*(landed.part for landed in self.parts), self._part):
            with suppress(OSError):  # what made the load fail; the next load deletes it
                self.landing.remove_part(self.source_name, self.load_id, part)
