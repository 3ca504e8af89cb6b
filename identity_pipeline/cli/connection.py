"""From a name on the command line to a declared source, opened as a run opens it."""

from collections.abc import Iterator

from identity_pipeline.connectors import do_without_frames
from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.secret import Env
from identity_pipeline.declarations import folder, references
from identity_pipeline.declarations.folder import Declarations
from identity_pipeline.declarations.opened import Opened, opened
from identity_pipeline.declarations.source import Source
from identity_pipeline.embedded.location import database_url


def declarations() -> Declarations:
    """Everything in the sources folder.

    Raises:
        ConfigurationError: there is no such folder, which must not look like one without sources.
    """
    path = settings.sources_folder()
    if not path.is_dir():
        raise ConfigurationError(f"{path} is no folder: make it, or set IDENTITY_SOURCES to the folder of your source files")
    return folder.load(path)


def open_source(name: str) -> Opened:
    """The source of that name, ready to be read.

    Raises:
        ConfigurationError: there is none, its declaration is broken, or something that it names is not there.
    """
    do_without_frames()
    return opened(declarations().source(name), database_url)


def missing(source: Source) -> Iterator[str]:
    """What to do about each environment variable that a source names and that is not set."""
    for setting, reference in source.references.items():
        if isinstance(reference, Env) and references.missing(reference):
            yield (
                f"{source.name}: config.{setting} is taken from the environment variable {reference.name}, which is not set: set it where "
                "this command and Dagster's processes start"
            )
