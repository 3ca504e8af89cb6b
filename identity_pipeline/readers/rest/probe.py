"""A connection test, told as steps: how far did one real request get?"""

from collections.abc import Callable, Iterator, Sized

from identity_pipeline.core.errors import (
    ConfigurationError,
    ContractBroken,
    CredentialError,
    PermissionDenied,
    PipelineError,
    SourceUnavailable,
)

_PASSED = {
    "reach": "the API answers",
    "authenticate": "the credential is accepted",
    "permission": "the credential may read",
}


def steps(sample: Callable[[], Sized]) -> Iterator[tuple[str, bool, str]]:
    """Name, outcome and message of the steps reach, authenticate, permission and sample.

    ``sample`` reads a first page the way a load does. Its error says which step failed; the steps
    after that one are left out.
    """
    failed, message = "", ""
    try:
        count = len(sample())
    except PipelineError as error:
        failed, message = _step(error), str(error)
    else:
        message = f"{count} records on the first page" if count else "no records there yet"
    for name, passed in _PASSED.items():
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
    return "reach" if isinstance(error, ConfigurationError | SourceUnavailable | ContractBroken) else "sample"
