"""The connection test of an HTTP API."""

from collections.abc import Callable, Iterator, Sequence, Sized

from identity_pipeline.core.check import CheckStep
from identity_pipeline.readers.check import check_steps


def check(sample: Callable[[], Sized], warnings: Sequence[str] = ()) -> Iterator[CheckStep]:
    """The steps reach, authenticate, permission and sample, up to the first that fails.

    ``sample`` reads a first page the way a load does; ``warnings`` are those of that read.
    """

    def found() -> str:
        count = len(sample())
        return "; ".join([f"{count} records on the first page" if count else "no records there yet", *warnings])

    return check_steps(found, reach="the API answers", authenticate="the credential is accepted", permission="the credential may read")
