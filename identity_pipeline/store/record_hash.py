"""The hash of a raw record: the same for the same fields and values, whatever stood around them.

Column order, null fields and the batch that a record came in do not change it; the mapping's
fingerprint does, so that a new mapping normalises everything again.
"""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from identity_pipeline.store.joining import merged

HASH = pa.binary(16)
"""A hash, as Arrow has it."""

_NAME_END, _FIELD_END = "\x1e", "\x1f"


def _framed(text: str) -> str:
    """Text that may hold our separators, written so that it cannot be mistaken for them."""
    return text.replace("\x1b", "\x1b0").replace(_NAME_END, "\x1b1").replace(_FIELD_END, "\x1b2")


def _joined(records: pa.Table) -> pa.Array | pa.ChunkedArray:
    """For each record its fields that are not null, by name: separator, name, separator, value."""
    pieces: list[pa.Array | pa.ChunkedArray | str] = []
    for name in sorted(records.column_names):
        column, before = records.column(name), _FIELD_END + _framed(name) + _NAME_END
        if column.null_count:
            pieces.append(pc.binary_join_element_wise(before, column, "", null_handling="emit_null"))
        else:
            pieces += [before, column]
    return pc.binary_join_element_wise(*merged(pieces), "", null_handling="replace", null_replacement="")


def _bytes(texts: pa.Array | pa.ChunkedArray) -> tuple[memoryview, list[int]]:
    """The bytes under an array of text, and where each value begins and the last ends."""
    array = pc.cast(texts, pa.large_string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1].tolist()
    return memoryview(data or b""), ends


def record_hashes(records: pa.Table, fingerprint: str) -> pa.Array:
    """128-bit hashes, one for each record, as 16 bytes.

    ``records`` has text columns only. The hash is not cryptographic: two versions of a record that
    differ by chance collide once in 2^128.
    """
    if not records.num_rows or not records.num_columns:
        return pa.array([xxhash.xxh3_128_digest(fingerprint.encode())] * records.num_rows, HASH)
    joined = _joined(records)
    data, ends = _bytes(joined)
    values = sum(len(c) - c.null_count for c in records.columns)
    window = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
    # One pass: of the three signs from ESC to our separators there are as many as we put in, or some were there before.
    if np.count_nonzero(window - np.uint8(0x1B) <= 0x1F - 0x1B) != 2 * values:
        framed = [pa.array([None if v is None else _framed(v) for v in c.to_pylist()], pa.string()) for c in records.columns]
        data, ends = _bytes(_joined(pa.table(framed, names=records.column_names)))
    seed = xxhash.xxh3_64_intdigest(fingerprint.encode())
    digest = xxhash.xxh3_128_digest
    digests = b"".join([digest(data[a:b], seed) for a, b in pairwise(ends)])
    return pa.Array.from_buffers(HASH, records.num_rows, [None, pa.py_buffer(digests)])
