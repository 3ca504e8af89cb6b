"""What is declared and what can be: the rows that the command line prints, the pages show and the API answers."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from identity_pipeline import connectors, docs
from identity_pipeline.connectors.base import Connector
from identity_pipeline.declarations.folder import Problem
from identity_pipeline.declarations.freshness import max_age
from identity_pipeline.declarations.opened import Opened
from identity_pipeline.declarations.source import Source
from identity_pipeline.loading.preview import check_fields


def source_types() -> list[str]:
    """Names of all source types: the ones of the product in their order, then any others that are there."""
    return [*connectors.SOURCE_TYPES, *sorted(set(connectors.modules()) - {*connectors.SOURCE_TYPES})]


def source_type(name: str) -> dict[str, Any]:
    """One source type: title, group, settings, cursors, the page about it."""
    if name not in connectors.modules():
        return {"source_type": name, "available": False, "settings": [], "cursor_columns": []}
    cls: type[Connector] = connectors.connector(name)
    return {
        "source_type": name,
        "group": cls.group,
        "vendor": cls.vendor,
        "available": True,
        "description": (sys.modules[cls.__module__].__doc__ or "").partition("\n")[0],
        "page": str(docs.page(name)),
        "settings": [vars(each) for each in cls.settings()],
        "cursor_columns": [
            {"cursor_column": each, "cursor_type": column.type, "overlap": column.overlap, "filtered_by": column.filtered_by}
            for each, column in cls.cursor_columns.items()
        ],
    }


def listed(source: Source, last: dict[str, Any]) -> dict[str, Any]:
    """A source that can be used; ``last`` is its row of :func:`identity_pipeline.store.listing.latest`."""
    return {
        "source_name": source.name,
        "source_type": source.source_type,
        "declared": "ok",
        "last_load": last.get("finished_at") or last.get("started_at"),
        "last_status": last.get("status"),
        "stale": _stale(source, last.get("committed_at")),
        "inserted": last.get("inserted"),
        "updated": last.get("updated"),
        "row_count": last.get("row_count"),
        "cursor_after": last.get("mark"),
        "state_fingerprint": last.get("state_fingerprint"),
        "state_stored_at": last.get("state_stored_at"),
        "schedule": source.schedule,
    }


def _stale(source: Source, committed_at: datetime | None) -> bool | None:
    """True if no load was committed for longer than the source allows; None if it allows any time or was never loaded."""
    age = max_age(source)
    return None if age is None or committed_at is None else datetime.now(UTC) - committed_at > age


def broken(problem: Problem) -> dict[str, Any]:
    """A declaration that cannot be used."""
    return {"source_name": problem.name, "declared": "broken", "error": str(problem)}


def checked(source: Opened) -> Iterator[tuple[str, str, str]]:
    """Step, outcome and message: of the connector, of the fields that the declaration names, of the API's version."""
    passed = True
    for step in source.connector.check():
        passed = passed and step.ok
        yield step.name, "ok" if step.ok else "failed", step.message
    if passed:
        fields = check_fields(source.spec, source.connector)
        yield fields.name, "ok" if fields.ok else "failed", fields.message
    if ending := source.connector.ending(datetime.now(UTC).date()):
        yield "api_version", "warning", ending
