"""Dagster's run, event and schedule storage in the identity database, in its own schema ``dagster``."""

from typing import Any, Self
from urllib.parse import quote

from dagster_postgres import DagsterPostgresStorage

from identity_pipeline.dagster_internals import ConfigurableClassData, UserConfigSchema
from identity_pipeline.embedded.location import database_url


class IdentityDatabaseStorage(DagsterPostgresStorage):
    """dagster-postgres at the address of the identity database, so that only one place says where it is.

    The address is looked up when the instance is opened: ``IDENTITY_DATABASE_URL``, else the
    embedded server. So dagster.yaml holds no address and no password.
    """

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """It takes no settings."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:  # noqa: ARG003 - Dagster's signature
        """Open the storage."""
        return cls(postgres_url=sqlalchemy_url(), inst_data=inst_data)


def sqlalchemy_url() -> str:
    """The identity database for SQLAlchemy and psycopg2, with Dagster's schema first."""
    url = database_url().replace("postgresql://", "postgresql+psycopg2://", 1)
    return f"{url}{'&' if '?' in url else '?'}options={quote('-csearch_path=dagster')}"
