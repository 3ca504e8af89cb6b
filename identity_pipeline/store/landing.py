"""The landing: where the batches of a load wait, as compressed Arrow files, until they are merged.

``<landing>/<source>/<load_id>/part-00000/000000.arrow``. A part is some 500,000 records (or
256 MB of text), merged in one transaction; a file holds record batches of one schema. The address
may be a folder or any URL that Arrow's file systems know (``s3://``, ``gs://``). Files hold
personal data: folders are made with mode 0700 and removed when their load is committed or given up.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs

from identity_pipeline.core.errors import PipelineError, TargetUnavailable
from identity_pipeline.core.text import to_table

BATCH_ROWS = 10_000
PART_ROWS = 500_000
PART_BYTES = 256 * 2**20
_GATHER_ROWS = 5_000


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

    def writer(self, source_name: str, load_id: int) -> "LandingWriter":
        """Start to land the batches of one load."""
        return LandingWriter(self, source_name, load_id)

    def tables(self, source_name: str, load_id: int, part: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The batches of one part, at most :data:`BATCH_ROWS` rows each; only ``columns`` if given.

        Raises:
            PipelineError: the part is gone (its load was committed or given up).
        """
        system, folder = self.at(source_name, str(load_id), f"part-{part:05d}")
        try:
            files = sorted(info.path for info in system.get_file_info(pafs.FileSelector(folder)))
        except FileNotFoundError:
            raise PipelineError(
                f"{source_name}: the landed part {part} of load {load_id} is gone: materialize again from the start"
            ) from None
        for path in files:
            with system.open_input_file(path) as stream:
                reader = pa.ipc.open_file(
                    stream,
                    options=pa.ipc.IpcReadOptions(included_fields=None)
                    if columns is None
                    else pa.ipc.IpcReadOptions(included_fields=self._positions(system, path, columns)),
                )
                for number in range(reader.num_record_batches):
                    yield pa.Table.from_batches([reader.get_batch(number)])

    @staticmethod
    def _positions(system: pafs.FileSystem, path: str, columns: list[str]) -> list[int]:
        with system.open_input_file(path) as stream:
            names = pa.ipc.open_file(stream).schema.names
        return [names.index(column) for column in columns if column in names]

    def fields(self, source_name: str, load_id: int, part: int) -> list[str]:
        """Names of the fields that the files of a part have, in order of first appearance."""
        system, folder = self.at(source_name, str(load_id), f"part-{part:05d}")
        names: dict[str, None] = {}
        for info in sorted(system.get_file_info(pafs.FileSelector(folder)), key=lambda i: i.path):
            with system.open_input_file(info.path) as stream:
                names.update(dict.fromkeys(pa.ipc.open_file(stream).schema.names))
        return list(names)

    def remove(self, source_name: str, load_id: int) -> None:
        """Delete what a load landed. Nothing happens if there is nothing."""
        self._delete(*self.at(source_name, str(load_id)))

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


@dataclass
class LandingWriter:
    """Gathers the batches of one load into files and parts. A context manager."""

    landing: Landing
    source_name: str
    load_id: int
    parts: list[int] = field(default_factory=list)
    """Records in each finished part."""
    fields: dict[str, None] = field(default_factory=dict)
    _waiting: list[pa.Table] = field(default_factory=list)
    _rows: int = 0
    _bytes: int = 0
    _files: int = 0

    def write(self, batch: pd.DataFrame | pa.Table) -> None:
        """Land one batch of text.

        Raises:
            TargetUnavailable: the landing place is full or cannot be written.
        """
        table = batch if isinstance(batch, pa.Table) else to_table(batch)
        if not table.num_rows:
            return
        self.fields.update(dict.fromkeys(table.column_names))
        if self._waiting and (self._waiting[0].schema != table.schema or sum(t.num_rows for t in self._waiting) >= _GATHER_ROWS):
            self._flush()
        self._waiting.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= PART_ROWS or self._bytes >= PART_BYTES:
            self._end_part()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting = []
        system, folder = self.landing.at(self.source_name, str(self.load_id), f"part-{len(self.parts):05d}")
        try:
            make_folder(system, folder)
            path = f"{folder}/{self._files:06d}.arrow"
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
        if self._rows:
            self.parts.append(self._rows)
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
        self._waiting = []
        with suppress(OSError):  # what made the load fail; the next load deletes it
            self.landing.remove(self.source_name, self.load_id)
