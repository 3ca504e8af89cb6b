"""External ids that a program took for numbers on their way into a file."""

import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.names import HEADERS

_FLOAT = r"^(-?[0-9]+)\.0+$"
_SCIENTIFIC = r"^-?[0-9](?:[.,][0-9]+)?[eE]\+[0-9]{1,3}$"


def read_as_meant(table: pa.Table, context: ReadContext, name: str) -> pa.Table:
    """``table`` with ids that are whole numbers written as floats (``7.0``) as the numbers that they were.

    Each is judged by itself: the same record has the same id in every file, whatever stands beside it.
    An id ``7`` beside it becomes the same record. The id is looked for under the customary headers. Ids
    in scientific notation stay and are warned of: their last digits are lost. ``name`` stands for the
    file in messages.
    """
    field = next((header for header in HEADERS.external_id if header in table.column_names), None)
    if field is None or not table.num_rows:
        return table
    at = table.column_names.index(field)
    column = table.column(at)
    if pc.any(pc.match_substring_regex(column, _SCIENTIFIC)).as_py():
        context.warn(
            f"{name}: {field} holds ids in scientific notation (such as 1.2E+12): their last digits are lost, and records that differ "
            "there become one: export the column as text"
        )
    floats = pc.match_substring_regex(column, _FLOAT)
    if not pc.any(floats).as_py():  # None if there is no id at all
        return table
    context.warn(f"{name}: {field} holds whole numbers written as floats (7.0): they are read as 7; export the column as text")
    meant = pc.replace_substring_regex(column, _FLOAT, r"\1")
    if pc.any(pc.is_in(meant.filter(floats), column)).as_py():
        context.warn(f"{name}: {field} holds the same number as 7 and as 7.0: both are one record; if they are two, give them other ids")
    return table.set_column(at, field, meant)
