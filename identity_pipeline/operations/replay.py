"""Records in quarantine, tried again with what their source declares now."""

from collections.abc import Callable

from identity_pipeline.core.redaction import Redactor
from identity_pipeline.declarations.source import Source
from identity_pipeline.loading import replay
from identity_pipeline.loading.replay import Replayed


def replayed(source: Source, url: str, ids: list[int] | None = None, log: Callable[[str], None] = lambda _: None) -> Replayed:
    """Merge the open records of a source, or those of them in ``ids``.

    Nothing is read from the source: its secrets need not be there.

    Raises:
        PipelineError: as :func:`identity_pipeline.loading.replay.replay` raises it.
    """
    connector = source.connect(Redactor(), lambda: url, secrets=False)
    return replay.replay(source.load_spec(connector), url, ids=ids, log=log)
