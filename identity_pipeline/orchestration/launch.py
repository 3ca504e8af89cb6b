"""Launching runs through the queue."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from identity_pipeline.dagster_internals import enqueue
from identity_pipeline.orchestration.assets import JOB, run_config


def launch(instance: dg.DagsterInstance, workspace: Path, names: list[str], choices: Mapping[str, object]) -> dict[str, str]:
    """Enqueue one run of the job for each source. ``choices`` are fields of the read op's config.

    Returns:
        Source name → run id.
    """
    return enqueue(instance, workspace, JOB, {name: (run_config(name, **choices), {"identity/source": name}) for name in names})
