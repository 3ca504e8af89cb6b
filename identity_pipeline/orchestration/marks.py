"""The high-water mark as asset metadata: published by the commit, read back by the next load.

Anyone who reaches the web server can report a materialization. So an event counts only if it came
from a run and says what the ledger says of its load. A load then starts from the lower of the
published mark and the ledger's: nobody can move it forward from outside, and wiping the asset
means to read everything again.
"""

from typing import cast, get_args

import dagster as dg

from identity_pipeline.core import cursor
from identity_pipeline.core.cursor import CursorType, Mark
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.text import escape
from identity_pipeline.store import ledger

_PAGE, _MOST = 50, 1_000


def published(instance: dg.DagsterInstance, url: str, source_name: str) -> Mark | None:
    """The mark of the newest materialization that came from a committed load of ours, or None.

    Events that were reported by hand, that carry no mark, or that claim what the ledger does not
    know are passed over. At most the newest 1,000 are looked at.
    """
    key = dg.AssetKey([source_name])
    latest = instance.get_latest_materialization_event(key)
    entries = [latest] if latest else []
    page, looked = None, 0
    while entries:
        for entry in entries:
            if (mark := _mark(entry, url, source_name)) is not None:
                return mark
        if looked >= _MOST:
            break
        result = instance.fetch_materializations(key, limit=_PAGE, cursor=page)
        entries, page = [record.event_log_entry for record in result.records], result.cursor
        looked += _PAGE
    return None


def _mark(entry: dg.EventLogEntry, url: str, source_name: str) -> Mark | None:
    event = entry.asset_materialization
    if event is None or not entry.run_id:
        return None
    values = {name: value.value for name, value in event.metadata.items()}
    column, kind, after, load_id = (values.get(name) for name in ("cursor_column", "cursor_type", "cursor_after", "load_id"))
    if not (isinstance(column, str) and kind in get_args(CursorType) and isinstance(after, str) and isinstance(load_id, int)):
        return None
    if escape(column + after) != column + after:  # no statement could ask for it
        return None
    try:
        mark = Mark(column, cast("CursorType", kind), cursor.canonical(cast("CursorType", kind), after))
    except ConfigurationError:
        return None
    return mark if ledger.committed(url, source_name, load_id, mark) else None
