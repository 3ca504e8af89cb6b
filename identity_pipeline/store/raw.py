"""The raw record as it is stored: a JSON object of text and nulls, made column by column."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.text import SANITISED
from identity_pipeline.store.joining import bytes_of, merged

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
    return pc.binary_join_element_wise(*merged([*pieces, "}"]), "", null_handling="replace", null_replacement="null")


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _escaped(text: pa.Array) -> pa.Array:
    """Texts as they stand between the quotes of a JSON string."""
    window = bytes_of(text)  # no part of a longer UTF-8 sequence is one of those that are escaped
    if (window == _BACKSLASH).any():
        text = pc.replace_substring(text, "\\", "\\\\")
    if (window == _QUOTE).any():
        text = pc.replace_substring(text, '"', '\\"')
    if (window < _SPACE).any():
        for byte in np.unique(window[window < _SPACE]).tolist():
            text = pc.replace_substring(text, chr(byte), json.dumps(chr(byte))[1:-1])
    return text
