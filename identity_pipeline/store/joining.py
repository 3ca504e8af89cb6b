"""Columns joined into one text or run of bytes for each row, at once: what the raw record's JSON, its hash and the binary COPY share."""

from typing import TypeVar

import numpy as np
import pyarrow as pa

Column = pa.Array | pa.ChunkedArray
Constant = TypeVar("Constant", str, bytes)


def merged(pieces: list[Column | Constant]) -> list[Column | Constant]:
    """``pieces`` of each row with neighbouring constants as one: a join costs by the number of its pieces."""
    found: list[Column | Constant] = []
    for piece in pieces:
        last = found[-1] if found else None
        if isinstance(piece, str | bytes) and isinstance(last, str | bytes):
            found[-1] = last + piece  # type: ignore[operator] - both are of one kind
        else:
            found.append(piece)
    return found


def bytes_of(array: pa.Array) -> np.ndarray:
    """The bytes of all values of an array of text or bytes, one value after the other."""
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32)
    return np.frombuffer(data, np.uint8)[ends[array.offset] : ends[array.offset + len(array)]]
