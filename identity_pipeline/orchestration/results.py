"""What a committed load shows in Dagster: the metadata of its materialization and its asset checks."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from identity_pipeline.orchestration.sources import Source

_TEXTS = ("cursor_column", "cursor_type", "cursor_before", "cursor_after")
_COUNTS = (
    "records_read", "inserted", "updated", "unchanged", "duplicates", "quarantined", "filtered", "deleted",
    "null_cursor", "bytes_read", "pages", "requests", "load_id",
)  # fmt: skip
_SECONDS = ("seconds_read", "seconds_merge", "throttled_seconds")
_VALID_SHARE = 0.5


def metadata(line: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
    """The metadata of one committed load. A cursor value that there is not is left out."""
    values: dict[str, dg.MetadataValue] = {name: dg.MetadataValue.text(line[name]) for name in _TEXTS if line[name] is not None}
    values |= {name: dg.MetadataValue.int(line[name]) for name in _COUNTS}
    values |= {name: dg.MetadataValue.float(line[name]) for name in _SECONDS}
    values["dagster/row_count"] = dg.MetadataValue.int(line["row_count"])
    if line["warnings"]:
        values["warnings"] = dg.MetadataValue.json(line["warnings"])
    return values


def checks(source: Source, line: Mapping[str, Any]) -> Iterator[dg.AssetCheckResult]:
    """The asset checks of one committed load."""
    parts = {n: line[n] for n in ("inserted", "updated", "unchanged", "duplicates", "quarantined", "filtered")}
    yield _check(source, "balance", sum(parts.values()) == line["records_read"], {"records_read": line["records_read"], **parts})
    share = line["quarantined"] / line["records_read"] if line["records_read"] else 0.0
    yield _check(
        source,
        "quarantine_share",
        share <= source.max_quarantined_share,
        {"share": share, "allowed": source.max_quarantined_share},
    )
    written = line["inserted"] + line["updated"]
    valid = line["valid_identifiers"] / written if written else 1.0
    yield _check(source, "valid_identifier_share", valid >= _VALID_SHARE, {"share": valid, "written": written})
    age = _age_hours(line)
    fresh = age is None or source.max_age_hours is None or age <= source.max_age_hours
    yield _check(source, "freshness", fresh, {"newest_record_hours_old": age} if age is not None else {})


def _check(source: Source, name: str, passed: bool, values: Mapping[str, float]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        asset_key=dg.AssetKey([source.name]),
        check_name=name,
        severity=dg.AssetCheckSeverity.ERROR if name == "balance" else dg.AssetCheckSeverity.WARN,
        metadata=dict(values),
    )


def _age_hours(line: Mapping[str, Any]) -> float | None:
    if line["cursor_type"] != "timestamp" or line["cursor_after"] is None:
        return None
    return round((datetime.now(UTC) - datetime.fromisoformat(line["cursor_after"])).total_seconds() / 3600, 2)
