"""What a committed load shows in Dagster: the metadata of its materialization and its asset checks."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from identity_pipeline.core.balance import BALANCE, COUNTS
from identity_pipeline.declarations.source import Source

CHECKS = {
    "balance": "Every record that was read was inserted, updated, unchanged, duplicate, quarantined or filtered.",
    "quarantine_share": "No larger share went into quarantine than the source's max_quarantined_share allows.",
    "valid_identifier_share": "At least half of what was written has a valid e-mail address or phone number.",
}
"""The checks of each source and what passing means."""

_TEXTS = ("cursor_after", "cursor_before", "cursor_column", "cursor_type")
_COUNTS = (*COUNTS, "null_cursor", "source_count", "bytes_read", "pages", "requests", "load_id")
_SECONDS = ("seconds_read", "seconds_merge", "throttled_seconds")
_VALID_SHARE = 0.5


def metadata(row: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
    """The metadata of one committed load, the mark and the balance first. A value that there is not is left out."""
    values: dict[str, dg.MetadataValue] = {"balance": dg.MetadataValue.text(_balance(row))}
    values |= {name: dg.MetadataValue.text(row[name]) for name in _TEXTS if row[name] is not None}
    values |= {name: dg.MetadataValue.int(row[name]) for name in _COUNTS if row[name] is not None}
    values |= {name: dg.MetadataValue.float(row[name]) for name in _SECONDS}
    values["dagster/row_count"] = dg.MetadataValue.int(row["row_count"])
    if row["warnings"]:
        values["warnings"] = dg.MetadataValue.json(row["warnings"])
    return values


def _balance(row: Mapping[str, Any]) -> str:
    """In one line, without what is nothing."""
    return f"{row['records_read']:,} read = {' + '.join(f'{row[name]:,} {name}' for name in BALANCE if row[name]) or 0}"


def checks(source: Source, row: Mapping[str, Any]) -> Iterator[dg.AssetCheckResult]:
    """The asset checks of one committed load."""
    read, parts = row["records_read"], {name: row[name] for name in BALANCE}
    yield _check(source, "balance", sum(parts.values()) == read, {"records_read": read, **parts})
    share, allowed = row["quarantined"] / read if read else 0.0, source.max_quarantined_share
    yield _check(source, "quarantine_share", share <= allowed, {"share": share, "allowed": allowed})
    written = row["inserted"] + row["updated"]
    valid = row["valid_identifiers"] / written if written else 1.0
    yield _check(source, "valid_identifier_share", valid >= _VALID_SHARE, {"share": valid, "written": written})


def _check(source: Source, name: str, passed: bool, values: Mapping[str, float]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        asset_key=dg.AssetKey([source.name]),
        check_name=name,
        severity=dg.AssetCheckSeverity.ERROR if name == "balance" else dg.AssetCheckSeverity.WARN,
        metadata=dict(values),
    )
