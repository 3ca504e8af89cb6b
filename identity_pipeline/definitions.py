"""The Dagster code location."""

import dagster as dg

from identity_pipeline.orchestration import assets

only: frozenset[str] | None = None
"""What a process that executes one run sets to its sources: of five hundred it need not build all."""


@dg.definitions
def defs() -> dg.Definitions:
    """Built from the sources folder each time the location is loaded."""
    return assets.definitions(only)
