"""CSV files of any store, read one after the other, and the connection test over them."""

from collections.abc import Callable, Iterable, Iterator

import pandas as pd

from identity_pipeline.core.errors import CredentialError, LimitExceeded, PermissionDenied, PipelineError, SourceRejected
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.csv import Dialect, read_csv
from identity_pipeline.readers.storage import Stored

_STEPS = {
    "reach": "the store answers",
    "authenticate": "it asks for no other credential",
    "permission": "the file may be read",
}


def read_files(files: Iterable[Stored], dialect: Dialect, context: ReadContext) -> Iterator[pd.DataFrame]:
    """Batches of the records of all ``files``.

    Raises:
        PipelineError: as :func:`~identity_pipeline.readers.csv.read_csv` and the store raise it.
    """
    for found in files:
        yield from read_csv(found.file, dialect, context, name=found.name, charset=found.charset)


def steps(batches: Callable[[], Iterator[pd.DataFrame]]) -> Iterator[tuple[str, bool, str]]:
    """Name, outcome and message of the steps reach, authenticate, permission and sample.

    ``batches`` begins a full read; its error says which step failed, and the steps after that one
    are left out.
    """
    try:
        first = next(batches(), None)
    except PipelineError as error:
        failed, message = _step(error), str(error)
    else:
        failed = ""
        message = "no records there yet" if first is None else f"{len(first):,} records of {len(first.columns)} fields in the first batch"
    for name, passed in _STEPS.items():
        if name == failed:
            yield name, False, message
            return
        yield name, True, passed
    yield "sample", not failed, message


def _step(error: PipelineError) -> str:
    if isinstance(error, CredentialError):
        return "authenticate"
    if isinstance(error, PermissionDenied):
        return "permission"
    return "sample" if isinstance(error, SourceRejected | LimitExceeded) else "reach"
