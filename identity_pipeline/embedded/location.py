"""Where the identity database is."""

from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, TargetUnavailable
from identity_pipeline.embedded import server as embedded

START = "the embedded server is not running: start it with `identity-pipeline db start`"


def plain_url() -> str:
    """The plain URL of the identity database: ``IDENTITY_DATABASE_URL``, else the embedded server's, up or not.

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


def database_url() -> str:
    """The URL to connect to. That of the embedded server is given only while it is up, and no other server passes for it.

    Raises:
        ConfigurationError: there is no database.
        TargetUnavailable: the embedded server is not up.
    """
    url = plain_url()
    if settings.database_url():
        return url
    if not embedded.up():
        raise TargetUnavailable(START)
    return f"{url}?require_auth={embedded.AUTHENTICATION}"
