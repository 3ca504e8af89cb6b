"""`identity-pipeline credentials`: secrets in the encrypted store."""

import os
import sys

import click

from identity_pipeline.cli import output
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.credentials import keyring, vault
from identity_pipeline.embedded.location import database_url

COLUMNS = ("name", "kind", "status", "key_id", "version", "created_at", "updated_at")


@click.group()
def credentials() -> None:
    """Secrets that sources name as {credential: NAME}, encrypted with AES-256-GCM.

    The key is IDENTITY_ENCRYPTION_KEYS (base64 of 32 bytes, comma-separated, newest first), else the
    file encryption.key of IDENTITY_HOME.

    \b
    Examples:
      identity-pipeline credentials set hubspot_token
      identity-pipeline credentials set hubspot_token --from-env HUBSPOT_TOKEN
      identity-pipeline credentials list
    """  # noqa: D301 - click takes the backspace itself


@credentials.command("set")
@click.argument("name")
@click.option("--kind", default="token", show_default=True, help="A word for what it is: token, password, key, …")
@click.option("--from-env", "variable", metavar="VAR", help="Take the secret from this environment variable.")
def set_(name: str, kind: str, variable: str | None) -> None:
    """Store a secret under NAME, over the one that is there.

    It is asked for without echo on a terminal, else read from standard input. It is never an
    argument: arguments show in process lists and shell histories.
    """
    url = database_url()
    vault.store(url, name, kind, _secret(name, variable))
    output.say(f"stored {name}: write {{credential: {name}}} where a source takes a secret")


def _secret(name: str, variable: str | None) -> str:
    if variable is not None:
        value = os.environ.get(variable)
        if not value:
            raise ConfigurationError(f"credential {name!r}: the environment variable {variable} is not set")
        return value
    if sys.stdin.isatty():
        return click.prompt(f"Secret for {name}", hide_input=True, err=True)
    text = sys.stdin.read()
    return text.removesuffix("\n").removesuffix("\r")


@credentials.command("list")
@output.as_json_option
def list_(*, as_json: bool) -> None:
    """Names, kinds and versions; never a secret."""
    output.show(vault.listing(database_url()), COLUMNS, as_json=as_json)


@credentials.command()
@click.argument("name")
def delete(name: str) -> None:
    """Delete the secret under NAME. Sources that name it fail from then on."""
    if not vault.delete(database_url(), name):
        raise ConfigurationError(f"there is no credential {name!r}: `identity-pipeline credentials list` shows those that are")
    output.say(f"deleted {name}")


@credentials.command()
def rotate() -> None:
    """Encrypt every secret again with a new key.

    With the key file the new key is made here, and the old one is put aside when all is done. With
    IDENTITY_ENCRYPTION_KEYS first put a new key (openssl rand -base64 32) in front of the old one there,
    with a comma between; then run this; then drop the old key. Loads go on meanwhile. It may be broken off
    and repeated.
    """
    done = vault.rotate(database_url(), log=output.say)
    if not os.environ.get(keyring.VARIABLE):
        output.say(
            f"{done} encrypted again with a new key in {keyring.key_file()}: keep a copy of it. The old key is in {keyring.old_keys()}: "
            "delete it when you have no backup of the database from before"
        )
    elif len(keyring.keys()) > 1:
        output.say(f"{done} encrypted again, the others were already: drop the older keys from {keyring.VARIABLE}")
    else:
        output.say(
            f"nothing was changed: {keyring.VARIABLE} holds one key, and every secret is encrypted with it already. For a new key put the "
            "output of `openssl rand -base64 32` and a comma in front of it, and run this again"
        )
