"""`identity-pipeline tokens`: who may use the web server and its API without the installation's key."""

import click

from identity_pipeline.cli import output
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.embedded.location import database_url
from identity_pipeline.store import tokens as store

COLUMNS = ("name", "role", "created_at", "expires_at", "last_used_at")


@click.group()
def tokens() -> None:
    """API tokens of the web server: `Authorization: Bearer TOKEN`, or typed on its sign-in page.

    \b
    Examples:
      identity-pipeline tokens create ci --role viewer --days 30
      identity-pipeline tokens list
      identity-pipeline tokens revoke ci
    """  # noqa: D301 - click takes the backspace itself


@tokens.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator"]), default="viewer", show_default=True, help="A viewer changes nothing.")
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long it is good.")
def create(name: str, role: store.Role, days: int) -> None:
    """Make a token and print it. It is shown this once and kept as a hash."""
    click.echo(store.create(database_url(), name, role, days))
    output.say(f"{name} is a {role} for {days} days: keep the token, it is not shown again")


@tokens.command("list")
@output.as_json_option
def list_(*, as_json: bool) -> None:
    """Names, roles and dates; never a token."""
    output.show(store.listing(database_url()), COLUMNS, as_json=as_json)


@tokens.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Take a token back, at once."""
    if not store.revoke(database_url(), name):
        raise ConfigurationError(f"there is no token {name!r}: `identity-pipeline tokens list` shows those that are")
    output.say(f"revoked {name}")
