"""Records out of responses, gathered into batches."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from identity_pipeline.core.text import table_of
from identity_pipeline.core.window import Window

ROWS = 5_000
CELLS = 1_000_000

Record = dict[str, Any]
Pages = Iterator[Sequence[Record]]


def batches(pages: Iterable[Sequence[Record]], window: Window) -> Iterator[pa.Table]:
    """The records of ``pages`` as tables of text of some 5,000 rows, fewer where records are wide.

    Asks for no further page once ``window.limit`` records are there.
    """
    held: list[Record] = []
    cells = total = 0
    for page in pages:
        held += page
        cells += sum(map(len, page))
        total += len(page)
        if len(held) >= ROWS or cells >= CELLS:
            yield table_of(held)
            held, cells = [], 0
        if window.limit is not None and total >= window.limit:
            break
    if held:
        yield table_of(held)
