"""`identity-pipeline credentials`: secrets in the encrypted store, and accounts that let us in."""

import os
import sys
from pathlib import Path

import click

from identity_pipeline.cli import output
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.credentials import keyring, vault
from identity_pipeline.embedded.location import database_url

COLUMNS = (
    "name", "kind", "status", "vendor", "account", "scopes", "reason", "last_used_at", "refreshed_at", "expires_at", "key_id", "version",
    "created_at", "updated_at",
)  # fmt: skip
_EXPENDABLE = ("key_id", "version", "created_at", "updated_at", "refreshed_at", "scopes", "vendor", "expires_at", "last_used_at")
_OTHER_ACCOUNT = "Take another account than before although sources were loaded with it."


@click.group()
def credentials() -> None:
    """Secrets that sources name as {credential: NAME}, encrypted with AES-256-GCM.

    An API key or password is `set`; a Google, Microsoft or Salesforce account is `connect`ed. The key is
    IDENTITY_ENCRYPTION_KEYS (base64 of 32 bytes, comma-separated, newest first), else the file
    encryption.key of IDENTITY_HOME.

    \b
    Examples:
      identity-pipeline credentials set hubspot_token
      identity-pipeline credentials set warehouse_key --from-file rsa_key.p8
      identity-pipeline credentials set-app google --client-id 1234.apps.googleusercontent.com
      identity-pipeline credentials connect google_contacts ada_google
      identity-pipeline credentials list
    """  # noqa: D301 - click takes the backspace itself


@credentials.command("set")
@click.argument("name")
@click.option("--kind", help="A word for what it is: api_key, password, key_file, …  [default: api_key, or key_file for a file]")
@click.option("--from-env", "variable", metavar="VAR", help="Take the secret from this environment variable.")
@click.option("--from-file", "file", type=click.Path(path_type=Path), help="Take the whole of this file, such as a private key.")
def set_(name: str, kind: str | None, variable: str | None, file: Path | None) -> None:
    """Store a secret under NAME, over the one that is there.

    It is asked for without echo on a terminal, else read from standard input. It is never an
    argument: arguments show in process lists and shell histories.
    """
    if (kind or "").startswith(vault.OAUTH) or name.startswith("app."):
        raise ConfigurationError("OAuth apps are stored by `credentials set-app`, accounts by `credentials connect`")
    url = database_url()
    vault.store(url, name, kind or ("key_file" if file else vault.API_KEY), _secret(name, variable, file))
    output.say(f"stored {name}: write {{credential: {name}}} where a source takes a secret")


def _secret(name: str, variable: str | None, file: Path | None) -> str:
    if variable is not None:
        value = os.environ.get(variable)
        if not value:
            raise ConfigurationError(f"credential {name!r}: the environment variable {variable} is not set")
        return value
    if file is not None:
        return _content(file)
    if sys.stdin.isatty():
        return click.prompt(f"Secret for {name}", hide_input=True, err=True)
    text = sys.stdin.read()
    return text.removesuffix("\n").removesuffix("\r")


def _content(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read (errno {error.errno}): check the path and who may read it") from None


@credentials.command("set-app")
@click.argument("vendor", metavar="VENDOR")
@click.option("--client-id", help="Id of the app, as the vendor shows it. Asked for where it is left out.")
@click.option("--public", is_flag=True, help="The app has no client secret.")
@click.option("--from-env", "variable", metavar="VAR", help="Take the client secret from this environment variable.")
@click.option("--authorize-url", default="", help="Where accounts agree, instead of the vendor's own address (national clouds, tests).")
@click.option("--token-url", default="", help="Where tokens are given, likewise. {tenant} stands for the tenant.")
def set_app(vendor: str, client_id: str | None, *, public: bool, variable: str | None, authorize_url: str, token_url: str) -> None:
    """Store the OAuth app of VENDOR: google, microsoft or salesforce. There is one for each.

    The client secret is asked for without echo, else read from standard input. What accounts granted to
    the app stays as it is: this is also how a new client secret is told.
    """
    from identity_pipeline.credentials import flow, grant  # noqa: PLC0415 - loads the HTTP client
    from identity_pipeline.credentials import vendors as known  # noqa: PLC0415

    of, url = known.vendor(vendor), database_url()
    if client_id is None:
        if not sys.stdin.isatty():
            raise click.UsageError("--client-id is missing: only the client secret is read from standard input")
        client_id = click.prompt("Client id", err=True)
    secret = "" if public else _secret(flow.app_name(of.name), variable, None).strip()
    if not secret and not public:
        raise ConfigurationError("the client secret is empty: give it on standard input or by --from-env, or say --public if there is none")
    grant.store_app(url, of.name, flow.App(client_id.strip(), secret, authorize_url, token_url))
    output.say(f"stored the app of {of.title}: register {grant.redirect_uri()} there as its redirect address, exactly as it stands here")


@credentials.command()
@click.argument("source_type")
@click.argument("name")
@click.option("--tenant", default="", help="Microsoft: directory id or domain. Salesforce: My Domain (acme.my.salesforce.com).")
@click.option("--no-browser", is_flag=True, help="Print the address, and ask for the one to which it leads in the end.")
@click.option("--other-account", is_flag=True, help=_OTHER_ACCOUNT)
@click.option("--app-only", is_flag=True, help="Let the app in by itself (client credentials): nobody has to agree.")
@click.option("--key-file", type=click.Path(path_type=Path), help="Google: a service account's JSON. Salesforce: the app's private key.")
@click.option("--user", default="", help="With --key-file: the user as whom is read (Google: domain-wide delegation).")
def connect(
    source_type: str, name: str, *, tenant: str, no_browser: bool, other_account: bool, app_only: bool, key_file: Path | None, user: str
) -> None:
    """Connect an account that SOURCE_TYPE reads, and store what it grants under NAME.

    A browser opens, where the account's owner agrees to read-only access. On a machine without one add
    --no-browser: open the address elsewhere, agree, and paste the address that the browser then shows,
    which need not load.
    """
    from identity_pipeline.credentials import grant  # noqa: PLC0415 - loads the HTTP client

    url = database_url()
    if app_only or key_file:
        key = _content(key_file) if key_file else ""
        done = grant.let_in(url, source_type, name, tenant=tenant, key=key, user=user)
    else:
        begun = grant.begin(url, source_type, name, tenant=tenant, other_account=other_account)
        output.say("open this address and agree:")
        click.echo(begun.address)
        done = grant.finish(url, _led_back(begun.redirect_uri, begun.address, no_browser=no_browser), named_by=_naming)
    output.say(f"connected as {done.account}: stored {done.name} ({', '.join(done.scopes)})")
    output.say(f"write {{credential: {done.name}}} where a source takes a secret")


def _led_back(redirect_uri: str, address: str, *, no_browser: bool) -> str:
    """The address to which the vendor led back."""
    from identity_pipeline.cli import loopback  # noqa: PLC0415 - only here

    if no_browser or not redirect_uri.startswith("http://localhost:"):
        if sys.stdin.isatty():
            return click.prompt("Address that the browser shows in the end", err=True)
        return sys.stdin.readline()
    return loopback.led_back(redirect_uri, address)


def _naming(name: str) -> list[str]:
    """The sources that name a credential; none where there are no sources."""
    from identity_pipeline.cli.connection import declarations  # noqa: PLC0415 - Dagster

    try:
        return declarations().naming(name)
    except ConfigurationError as error:
        output.say(f"without a look at sources: {error}")
        return []


@credentials.command("list")
@output.as_json_option
def list_(*, as_json: bool) -> None:
    """What is stored, whose it is and how it stands; never a secret.

    `status` is `ok`, or `needs_reconnect` for a grant that was revoked or has expired: `reason` says why.
    """
    output.show(vault.listing(database_url()), COLUMNS, as_json=as_json, expendable=_EXPENDABLE)


@credentials.command()
@click.argument("name")
def test(name: str) -> None:
    """See whether what is stored under NAME works: a token is got with it, the sources that name it are asked.

    Exit status 1 if it does not; the message says what to do.
    """
    from identity_pipeline.cli.connection import declarations  # noqa: PLC0415 - Dagster
    from identity_pipeline.declarations.folder import Declarations  # noqa: PLC0415
    from identity_pipeline.operations.credentials import tested  # noqa: PLC0415 - loads the HTTP client

    try:
        declared = declarations()
    except ConfigurationError as error:
        output.say(f"without a look at sources: {error}")
        declared = Declarations({}, [])
    failed = False
    for what, outcome, message in tested(database_url, name, declared):
        failed = failed or outcome == "failed"
        output.say(f"{what} {outcome}: {message}")
    if failed:
        raise SystemExit(1)


@credentials.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Delete it although sources name it: they fail from then on.")
def delete(name: str, *, force: bool) -> None:
    """Delete the secret under NAME. Refused while a source names it."""
    if not vault.delete(database_url(), name, [] if force else _naming(name), force=force):
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
