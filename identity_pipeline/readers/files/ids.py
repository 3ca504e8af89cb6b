"""External ids that a program took for numbers on their way into a file."""

import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.names import HEADERS

_FLOAT = r"^-?[0-9]+\.0+$"
_SCIENTIFIC = r"^-?[0-9](?:[.,][0-9]+)?[eE]\+[0-9]{1,3}$"


def read_as_meant(table: pa.Table, context: ReadContext, name: str) -> pa.Table:
    """``table`` with ids that are floats throughout (``7.0``) as the whole numbers that they were.

    The id is looked for under the customary headers. Ids in scientific notation stay and are warned
    of: their last digits are lost. ``name`` stands for the file in messages.
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
    if not pc.all(pc.match_substring_regex(column, _FLOAT)).as_py():  # None if there is no id at all
        return table
    context.warn(f"{name}: {field} holds whole numbers written as floats (7.0): they are read as 7; export the column as text")
    return table.set_column(at, field, pc.replace_substring_regex(column, r"\.0+$", ""))
