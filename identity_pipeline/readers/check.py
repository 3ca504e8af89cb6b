"""A connection test as steps: how far did one real read get?"""

from collections.abc import Callable, Iterator

from identity_pipeline.core.check import CheckStep
from identity_pipeline.core.errors import ConfigurationError, ContractBroken, CredentialError, PermissionDenied, PipelineError, TryLater


def check_steps(sample: Callable[[], str], *, reach: str, authenticate: str, permission: str) -> Iterator[CheckStep]:
    """The steps reach, authenticate, permission and sample, up to the first that fails.

    ``sample`` reads the way a load does and says what it found; its error says which step failed. The
    texts are the messages of the steps before it that passed.
    """
    failed = ""
    try:
        message = sample()
    except PipelineError as error:
        failed, message = _step(error), str(error)
    for name, passed in (("reach", reach), ("authenticate", authenticate), ("permission", permission)):
        if name == failed:
            yield CheckStep(name, False, message)
            return
        yield CheckStep(name, True, passed)
    yield CheckStep("sample", not failed, message)


def _step(error: PipelineError) -> str:
    if isinstance(error, CredentialError):
        return "authenticate"
    if isinstance(error, PermissionDenied):
        return "permission"
    return "reach" if isinstance(error, ConfigurationError | TryLater | ContractBroken) else "sample"
