"""What to do about an identity database that does not answer."""

from identity_pipeline.core import settings
from identity_pipeline.core.errors import PipelineError, TargetUnavailable
from identity_pipeline.embedded import server as embedded
from identity_pipeline.embedded.location import START


def explained(error: PipelineError) -> list[str]:
    """The message of an error, and where it is of the database and does not say so itself: what to do about that."""
    message = str(error)
    return [message, advice()] if isinstance(error, TargetUnavailable) and START not in message else [message]


def advice() -> str:
    """Which database it is, and the command that starts it where nobody did."""
    if url := settings.database_url():
        place = url.rpartition("@")[2].partition("?")[0]
        return f"IDENTITY_DATABASE_URL leads to {place}: check that it is right and that the server is up"
    if not embedded.up():
        return START
    return "the embedded server runs but does not answer: try again, or restart it with `identity-pipeline db stop` and `db start`"


def is_lost_connection(error: BaseException) -> bool:
    """True for what Dagster's storage raises when its database goes away; named, since importing the drivers costs half a second."""
    return any(
        (cls.__module__.partition(".")[0], cls.__name__)
        in {("sqlalchemy", "OperationalError"), ("sqlalchemy", "InterfaceError"), ("psycopg2", "OperationalError"),
            ("psycopg2", "InterfaceError"), ("dagster_postgres", "DagsterPostgresException")}
        for cls in type(error).__mro__
    )  # fmt: skip
