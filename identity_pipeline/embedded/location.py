"""Where the identity database is."""

from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.embedded import server as embedded


def database_url() -> str:
    """The plain URL of the identity database: ``IDENTITY_DATABASE_URL``, else the embedded server's.

    Raises:
        ConfigurationError: neither is there.
    """
    url = settings.database_url() or embedded.url()
    if url is None:
        raise ConfigurationError(
            f"no identity database: IDENTITY_DATABASE_URL is not set, and there is no embedded server in {settings.home()}: "
            "run `identity-pipeline db start`, or set IDENTITY_DATABASE_URL"
        )
    return url
