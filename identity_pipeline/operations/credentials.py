"""Whether what is stored works: it opens, the vendor gives a token for it, the sources that name it may read."""

from collections.abc import Callable, Iterator

from identity_pipeline.core.redaction import Redactor
from identity_pipeline.credentials import flow, refresh, vault
from identity_pipeline.declarations.folder import Declarations
from identity_pipeline.declarations.opened import opened


def tested(url: Callable[[], str], name: str, declared: Declarations) -> Iterator[tuple[str, str, str]]:
    """What was tried, ``ok`` or ``failed``, and what came of it; of each source its own steps.

    Raises:
        PipelineError: it does not open, or no token is given.
    """
    row = vault.use(url(), name).row
    yield name, "ok", f"opens ({row['kind']})"
    if row["kind"] in flow.KINDS:
        refresh.provider(url(), name, Redactor()).token()
        yield name, "ok", f"{row['vendor']} gives {row['account']} a token"
    for each in declared.naming(name):
        source = opened(declared.source(each), url)
        with source.redacting():
            for step in source.connector.check():
                yield f"{each}: {step.name}", "ok" if step.ok else "failed", source.redactor.redact(step.message)
