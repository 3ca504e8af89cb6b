"""How old a source's last load may be before it counts as stale."""

from datetime import UTC, datetime, timedelta

import pytest

from identity_pipeline.declarations.freshness import max_age
from identity_pipeline.declarations.source import Source

NOW = datetime(2026, 4, 13, 12, tzinfo=UTC)


def source(**declared) -> Source:
    config = {"connection_string": {"env": "DSN"}, "table": "people"}
    return Source(name="crm", source_type="postgres_identity", config=config, **declared)


@pytest.mark.parametrize(
    ("declared", "age"),
    [
        ({}, None),
        ({"max_age_hours": 36}, timedelta(hours=36)),
        ({"schedule": "*/30 * * * *"}, timedelta(hours=1)),
        ({"schedule": "0 3 * * *"}, timedelta(days=2)),
        ({"schedule": "0 9 * * 1-5"}, timedelta(days=6)),
        ({"schedule": "0 3 * * *", "max_age_hours": 5}, timedelta(hours=5)),
        ({"full_refresh_schedule": "0 3 * * 0"}, None),
    ],
)
def test_a_source_is_stale_after_what_it_says_or_twice_its_longest_interval(declared: dict, age: timedelta | None):
    assert max_age(source(**declared), NOW) == age
