"""How old the last load of a source may be."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

from identity_pipeline.dagster_internals import cron_string_iterator
from identity_pipeline.declarations.source import Source

_TICKS = 30
"""Enough ticks to meet a weekend or a month's end."""


def max_age(source: Source, now: datetime | None = None) -> timedelta | None:
    """``max_age_hours``, else twice the longest time between two ticks of the schedule, else None."""
    if source.max_age_hours is not None:
        return timedelta(hours=source.max_age_hours)
    if source.schedule is None:
        return None
    start = (now or datetime.now(UTC)).timestamp()
    ticks = islice(cron_string_iterator(start, source.schedule, "UTC"), _TICKS)
    return 2 * max(later - earlier for earlier, later in pairwise(ticks))
