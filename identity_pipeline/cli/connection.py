"""From a declared source to a connector that can read: settings resolved as a run resolves them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import ValidationError

from identity_pipeline.connectors.base import Connector
from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, PipelineError
from identity_pipeline.embedded.location import database_url
from identity_pipeline.orchestration.boundary import redact, resolved
from identity_pipeline.orchestration.sources import CREDENTIAL, Declarations, Source, load


def declarations() -> Declarations:
    """Everything in the sources folder."""
    return load(settings.sources_folder())


def variables(source: Source) -> dict[str, str]:
    """Setting → name of the environment variable that it is taken from."""
    return {setting: str(value["env"]) for setting, value in source.config.items() if isinstance(value, Mapping) and set(value) == {"env"}}


def credentials(source: Source) -> dict[str, str]:
    """Setting → name of the stored credential that it is taken from."""
    return {
        setting: str(value["credential"])
        for setting, value in source.config.items()
        if isinstance(value, Mapping) and set(value) == {"credential"}
    }


def missing(source: Source) -> Iterator[str]:
    """What to do about each environment variable that a source names and that is not set."""
    for setting, variable in variables(source).items():
        if variable not in os.environ:
            yield (
                f"{source.name}: config.{setting} is taken from the environment variable {variable}, which is not set: set it where "
                "this command and Dagster's processes start"
            )


def connect(source: Source) -> Connector:
    """The connector of a source, environment variables and credentials looked up.

    Raises:
        ConfigurationError: a variable is not set, a credential is not there or does not open, or a value does not fit its setting.
    """
    for fault in missing(source):
        raise ConfigurationError(fault)
    try:
        connector: Connector = source.resource().process_config_and_initialize()
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise ConfigurationError(f"{source.name}: config.{place}: {fault['msg'].removeprefix('Value error, ')}") from None
    if any(isinstance(value, str) and value.startswith(CREDENTIAL) for value in vars(connector).values()):
        connector = resolved(connector, database_url())
    return connector


def unconnected(source: Source) -> Connector:
    """The connector of a source for what needs no connection: its secrets are not looked up.

    Raises:
        ConfigurationError: a setting that is no secret comes from the environment and is not there.
    """
    plain = {field["name"] for field in source.connector.form() if not field["secret"]}
    return connect(source) if plain & {*variables(source), *credentials(source)} else source.resource()


@contextmanager
def redacting(connector: Connector) -> Iterator[None]:
    """Take the connector's secrets out of the errors that leave the body."""
    try:
        yield
    except PipelineError as error:
        raise type(error)(redact(str(error), connector.secrets())) from None
