"""The raw record as it is stored: a JSON object of text and nulls, made column by column."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.text import SANITISED

_QUOTE, _BACKSLASH, _SPACE = b'"\\ '


def raw_json(records: pa.Table) -> pa.Array:
    """Each record as a JSON object of text and nulls. ``records`` has text columns only."""
    names = [n for n in records.column_names if n != SANITISED or records.column(n).null_count < records.num_rows]
    if not names:
        return pa.array(["{}"] * records.num_rows, pa.string())
    pieces: list[pa.Array | str] = []
    for number, name in enumerate(names):
        text = _escaped(_one(records.column(name)))
        before = f"{',' if number else '{'}{json.dumps(name, ensure_ascii=False)}:"
        if text.null_count:
            quote = pc.if_else(pc.is_valid(text), '"', "")  # a null becomes the word, without quotes
            pieces += [before, quote, text, quote]
        else:
            pieces += [f'{before}"', text, '"']
    return pc.binary_join_element_wise(*_merged([*pieces, "}"]), "", null_handling="replace", null_replacement="null")


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _escaped(text: pa.Array) -> pa.Array:
    """Texts as they stand between the quotes of a JSON string."""
    window = _bytes(text)
    if (window == _BACKSLASH).any():
        text = pc.replace_substring(text, "\\", "\\\\")
    if (window == _QUOTE).any():
        text = pc.replace_substring(text, '"', '\\"')
    if (window < _SPACE).any():
        for byte in np.unique(window[window < _SPACE]).tolist():
            text = pc.replace_substring(text, chr(byte), json.dumps(chr(byte))[1:-1])
    return text


def _bytes(text: pa.Array) -> np.ndarray:
    """The bytes of an array of text. No part of a longer UTF-8 sequence is one of those that are escaped."""
    _, offsets, data = text.buffers()
    if data is None or not len(text):
        return np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32)
    return np.frombuffer(data, np.uint8)[ends[text.offset] : ends[text.offset + len(text)]]


def _merged(pieces: list[pa.Array | str]) -> list[pa.Array | str]:
    """``pieces`` with neighbouring constants as one."""
    merged: list[pa.Array | str] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(last := merged[-1], str):
            merged[-1] = last + piece
        else:
            merged.append(piece)
    return merged
