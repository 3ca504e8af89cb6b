"""The Dagster code location."""

import dagster as dg

from identity_pipeline.orchestration import assets


@dg.definitions
def defs() -> dg.Definitions:
    """Built from the sources folder each time the location is loaded."""
    return assets.definitions()
