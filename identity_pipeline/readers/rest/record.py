"""Records out of responses, gathered into batches."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isqrt
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.errors import ContractBroken
from identity_pipeline.core.text import table_of, to_text
from identity_pipeline.core.window import Window

ROWS = 5_000
CELLS = 1_000_000
"""Rows by columns of a batch: a column takes its room in every row, though one record alone has it."""
BYTES = 16 * 2**20

_STEP = 500
_LIKELY = 250_000_000
"""Rows by bytes that are made into one table: if every ten bytes were a column of their own, that would be some seconds' work."""

Record = dict[str, Any]
Pages = Iterator[Sequence[Record]]

_OLDER = timedelta(days=2)
"""So far below the bound no filter reaches that only rounds, to days of any time zone."""


def filtered(pages: Pages, window: Window) -> Pages:
    """``pages`` as they are, with a warning if the first one shows that the source did not filter as it was asked."""
    for number, page in enumerate(pages):
        if number == 0 and (count := _older(page, window)):
            window.context.warn(
                f"{count} of the first {len(page)} records are more than two days older than was asked for: the source ignores the filter "
                f"on {window.cursor_column}, so that each load reads too much; nothing is lost, report it"
            )
        yield page


def _older(page: Sequence[Record], window: Window) -> int:
    cursor, lower = window.cursor, window.lower
    if cursor is None or lower is None or cursor.type != "timestamp" or not cursor.in_records or window.context.asked_below:
        return 0
    values = cursor.of(pa.table({cursor.column: pa.array([to_text(record.get(cursor.column)) for record in page], pa.string())}))
    bound = pa.scalar(datetime.fromisoformat(lower) - _OLDER, values.type) if values is not None else None
    return pc.sum(pc.less(values, bound)).as_py() or 0 if bound is not None else 0


def folded(record: Record, name: str, keys: Sequence[str], value: str) -> bool:
    """Make of the GraphQL connection ``name`` of ``record`` one object: ``value`` of each node under its ``keys``, joined by dots.

    True if the connection has more nodes. What is no connection stays as it is.
    """
    held = record.get(name)
    nodes = held.get("nodes") if isinstance(held, dict) else None
    if not isinstance(held, dict) or not isinstance(nodes, list):
        return False
    found = [node for node in nodes if isinstance(node, dict)]
    record[name] = {".".join(str(node.get(key)) for key in keys): node.get(value) for node in found}
    info = held.get("pageInfo")
    return isinstance(info, dict) and info.get("hasNextPage") is True


def objects(items: Any) -> list[Record]:
    """The objects of a list; none of what is no list."""
    return [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []


def first(items: Any, mark: str = "") -> Record | None:
    """Of the objects of a list that one which is true at ``mark`` (``metadata.primary``), else the first; None if there is none."""
    found, path = objects(items), mark.split(".")
    return next((each for each in found if mark and _marked(each, path)), found[0] if found else None)


def _marked(node: Any, path: Sequence[str]) -> bool:
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    return node is True


@dataclass
class Received:
    """Bytes of answers, unpacked, that came so far: about so much do the records hold that are made of them."""

    size: int = 0


def batches(pages: Iterable[Sequence[Record]], window: Window, received: Received | None = None) -> Iterator[pa.Table]:
    """The records of ``pages`` as tables of text of some 5,000 rows, fewer where records are wide, long, or have names of their own each.

    Asks for no further page once ``window.limit`` records are there. ``received`` is what came with each page.
    """
    held, names, rows, size = list[pa.Table](), set[str](), 0, 0
    for table in _tables(pages, window, received or Received()):
        names.update(table.column_names)
        rows, size = rows + table.num_rows, size + table.nbytes
        if held and (rows > ROWS or rows * len(names) > CELLS or size > BYTES):
            yield _joined(held)
            held, names, rows, size = [], set(table.column_names), table.num_rows, table.nbytes
        held.append(table)
    if held:
        yield _joined(held)


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="default").combine_chunks() if len(tables) > 1 else tables[0]


def _tables(pages: Iterable[Sequence[Record]], window: Window, received: Received) -> Iterator[pa.Table]:
    """The records in tables of at most :data:`_STEP` rows: only a table shows what its records hold. None is too much for a batch."""
    waiting, most, room, total, before = list[Record](), _STEP, _STEP, 0, received.size
    for page in pages:
        each = (received.size - before) // max(len(page), 1) or 1
        bound, before = max(1, min(BYTES // each, isqrt(_LIKELY // each))), received.size
        room = min(room, bound)
        for record in page:
            if len(waiting) >= room:
                made = _fitting(waiting)
                yield from made
                most = min(_STEP, 2 * min(table.num_rows for table in made))
                waiting, room = [], min(most, bound)
            waiting.append(record)
        total += len(page)
        if window.limit is not None and total >= window.limit:
            break
    if waiting:
        yield from _fitting(waiting)


def _fitting(records: list[Record]) -> list[pa.Table]:
    """The records as a table, as several where one would be more than a batch. A record alone is one, whatever it holds."""
    made = table_of(records)
    if len(records) == 1 or (made.num_rows * made.num_columns <= CELLS and made.nbytes <= BYTES):
        return [made]
    half, made = len(records) // 2, None
    return [*_fitting(records[:half]), *_fitting(records[half:])]


def rows(text: bytes) -> list[Record]:
    """The rows of well-formed CSV with a header, as objects of text; a cell that is empty is null.

    Raises:
        ContractBroken: it is none, breaks off, or a row has another number of cells than the header.
    """
    from pyarrow import csv as arrow_csv  # noqa: PLC0415 - for the few answers that are CSV

    names = next(csv.reader([text.partition(b"\n")[0].decode("utf-8", "replace")]), [])
    # one block, since a cell may hold line breaks
    read = arrow_csv.ReadOptions(block_size=len(text) + 1, use_threads=False)
    cells = arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""])
    try:
        made = arrow_csv.read_csv(pa.BufferReader(text), read, arrow_csv.ParseOptions(newlines_in_values=True), cells)
    except pa.ArrowInvalid:  # its message quotes the row
        raise ContractBroken("its CSV breaks off or is none") from None
    if len(set(names)) < len(names) or made.column_names != names:
        raise ContractBroken("its CSV has no header of different names")
    return made.to_pylist()
