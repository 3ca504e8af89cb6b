"""The raw record as it is stored: a JSON object of text and nulls."""

import polars as pl
import pyarrow as pa

from identity_pipeline.core.text import SANITISED


def raw_json(records: pa.Table) -> pa.Array:
    """Each record as a JSON object of text and nulls."""
    names = [n for n in records.column_names if n != SANITISED or records.column(n).null_count < records.num_rows]
    frame = pl.from_arrow(records.select(names))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table gives a frame
    return frame.select(pl.struct(pl.all()).struct.json_encode().alias("raw")).get_column("raw").to_arrow()
