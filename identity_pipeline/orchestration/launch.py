"""Launching runs through the queue."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from identity_pipeline.dagster_internals import enqueue, enqueue_in
from identity_pipeline.orchestration.assets import JOB, run_config

if TYPE_CHECKING:  # a seventh of a second, for the web server alone
    from dagster._core.workspace.context import WorkspaceRequestContext


def launch(instance: dg.DagsterInstance, workspace: Path, names: list[str], choices: Mapping[str, object]) -> dict[str, str]:
    """Enqueue one run of the job for each source. ``choices`` are fields of the read op's config.

    Returns:
        Source name → run id.
    """
    return enqueue(instance, workspace, JOB, _runs(names, choices))


def launch_in(context: "WorkspaceRequestContext", names: list[str], choices: Mapping[str, object]) -> dict[str, str]:
    """As :func:`launch`, in a workspace that is loaded already."""
    return enqueue_in(context, JOB, _runs(names, choices))


def _runs(names: list[str], choices: Mapping[str, object]) -> dict[str, tuple[Mapping[str, object], dict[str, str]]]:
    return {name: (run_config(name, **choices), {"identity/source": name}) for name in names}
