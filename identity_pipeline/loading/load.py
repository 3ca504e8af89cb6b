"""A whole load in one process: read, every part, commit."""

from collections.abc import Callable
from typing import Any

from identity_pipeline.core.cursor import Mark
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.loading import part
from identity_pipeline.loading.commit import commit
from identity_pipeline.loading.read import read
from identity_pipeline.loading.spec import Reader, RunOptions, Target
from identity_pipeline.store import ledger


def load(
    spec: LoadSpec,
    reader: Reader,
    target: Target,
    run_id: str,
    *,
    options: RunOptions | None = None,
    published: Mark | None = None,
    log: Callable[[str], None] = print,
    redactor: Redactor | None = None,
) -> dict[str, Any]:
    """Do what a run does, without Dagster.

    Returns:
        The load's row of the ledger, with ``row_count``.

    Raises:
        PipelineError: it failed; the load is closed as failed, the mark is where it was.
    """
    found = read(spec, reader, target, run_id, options=options, published=published, log=log, redactor=redactor)
    with ledger.closing(target.url, found.load):
        for task in part.tasks(spec, found):
            part.merge(task, target)
        return commit(spec, found, target)
