"""The source types: one module each, found by name.

Belongs here: one file for each source type, named as it, with one :class:`~.base.Connector`
subclass. Does not belong here: paging, parsing and talking to servers (``readers``), Dagster's
assets (``orchestration``), another connector.
"""

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from identity_pipeline.connectors.base import Connector
from identity_pipeline.core import arrow
from identity_pipeline.core.errors import ConfigurationError

SOURCE_TYPES = (
    "postgres_identity",
    "mysql_identity",
    "snowflake_identity",
    "bigquery_identity",
    "csv_url",
    "s3_csv",
    "gcs_csv",
    "azure_blob_csv",
    "google_sheets",
    "sftp_csv",
    "salesforce_contacts",
    "microsoft_contacts",
    "google_contacts",
    "hubspot_contacts",
    "airtable_records",
    "stripe_customers",
    "intercom_contacts",
    "pipedrive_persons",
    "zendesk_users",
    "shopify_customers",
    "klaviyo_profiles",
    "mailchimp_members",
)
"""The source types of the product, in the order of listings; any other that is there comes last."""


def modules() -> list[str]:
    """Names of the connector modules that are there."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base")


@cache
def connector(source_type: str) -> type[Connector]:
    """The connector of one source type.

    Raises:
        ConfigurationError: no such type, or its module does not hold exactly one connector.
    """
    if source_type not in modules():
        raise ConfigurationError(
            f"source_type {source_type!r} is unknown; known are {', '.join(modules())}"
        )
    module = importlib.import_module(f"{__name__}.{source_type}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Connector)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ConfigurationError(
            f"connectors/{source_type}.py: expected one Connector subclass, found {len(found)}"
        )
    return found[0]


def connectors() -> dict[str, type[Connector]]:
    """Source type → connector, for all that are there."""
    return {name: connector(name) for name in modules()}


def do_without_frames() -> None:
    """Have Arrow do without pandas in this process, unless the file of a connector imports it.

    For processes of ours alone, where nobody else's code works with frames.
    """
    files = Path(__path__[0]).glob("*.py")
    if not any("\nimport pandas" in path.read_text("utf-8") for path in files):
        arrow.settle()
