"""A declared source, opened: its connector with everything looked up that is kept elsewhere."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from identity_pipeline.connectors.base import Connector
from identity_pipeline.core.errors import PipelineError
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.declarations.source import Source


@dataclass(frozen=True)
class Opened:
    """What a load, a preview or a connection test needs of a source."""

    source: Source
    connector: Connector
    spec: LoadSpec
    redactor: Redactor

    @contextmanager
    def redacting(self) -> Iterator[None]:
        """Take the source's secrets out of the errors that leave the body."""
        try:
            yield
        except PipelineError as error:
            raise error.reworded(self.redactor.redact(str(error))) from None


def opened(
    source: Source, database_url: Callable[[], str], redactor: Redactor | None = None, typed: Mapping[str, str] = MappingProxyType({})
) -> Opened:
    """Open a source. ``database_url`` is asked only if the credential store is needed. ``typed``: as for :meth:`Source.connect`.

    Raises:
        ConfigurationError: a variable is not set, a credential is not there or does not open, or a value does not fit its setting.
    """
    redactor = redactor or Redactor()
    connector = source.connect(redactor, database_url, typed=typed)
    return Opened(source, connector, source.load_spec(connector), redactor)
