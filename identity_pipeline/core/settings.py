"""Settings from the environment, read when asked for and never at import."""

import os
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.spelling import suggestion

_ALLOWED = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
_WHOLE_NUMBERS = {"connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}
COLLECT_AFTER = 50_000
"""New objects between two collections of garbage in processes of ours.

Imports make a million that stay, a page of JSON as many as it has values: looking through them again and again is a fifth of a start.
"""
PACKAGE = Path(__file__).resolve().parent.parent
PROJECT_FILES = ("dagster.yaml", "workspace.yaml")


def project() -> Path:
    """The project's folder, which has workspace.yaml and dagster.yaml.

    It is ``DAGSTER_HOME`` where that is one (a service may be started anywhere), else looked for from the
    working directory upward, then where this package is a clone.

    Raises:
        ConfigurationError: there is none.
    """
    here = Path.cwd()
    dagster_home = [Path(given)] if (given := os.environ.get("DAGSTER_HOME")) else []
    for folder in (*dagster_home, here, *here.parents, PACKAGE.parent):
        if all((folder / name).is_file() for name in PROJECT_FILES):
            return folder
    raise ConfigurationError(
        f"neither {here} nor a folder above it is a project (it has workspace.yaml and dagster.yaml): make one with "
        "`identity-pipeline init FOLDER`, or change into yours, and run the command there"
    )


def home() -> Path:
    """``IDENTITY_HOME``: embedded Postgres, landing and key file. Default ``.identity`` of the project."""
    return Path(os.environ.get("IDENTITY_HOME") or project() / ".identity").expanduser().absolute()


def database_url() -> str | None:
    """``IDENTITY_DATABASE_URL`` as a plain ``postgresql://`` URL, or None for the embedded server."""
    url = os.environ.get("IDENTITY_DATABASE_URL", "").strip()
    if not url:
        return None
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        raise ConfigurationError(
            "IDENTITY_DATABASE_URL: expected postgresql://user:password@host:port/database, "
            f"found a value that starts with {scheme[:12]!r}: set it to a PostgreSQL 15+ URL, or unset it "
            "to use the embedded server"
        )
    try:
        parts = urlsplit(f"postgresql://{rest}")
        _ = parts.port
        if "@" in parts.query and "@" not in parts.netloc:  # a password with a ? in it: what follows is a part of a secret
            raise ValueError
    except ValueError:
        raise ConfigurationError(
            "IDENTITY_DATABASE_URL: host and port cannot be read: expected postgresql://user:password@host:port/database, "
            "with special characters of the password percent-encoded (@ is %40, / is %2F, : is %3A, ? is %3F)"
        ) from None
    if parts.query:
        _check_parameters(parts.query)
    return f"postgresql://{rest}"


def _check_parameters(query: str) -> None:
    """Raise for what PostgreSQL's client library would refuse at each connection, as if the server did not answer."""
    from psycopg import pq  # noqa: PLC0415 - few URLs have parameters

    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ConfigurationError(f"IDENTITY_DATABASE_URL: {name!r} is no parameter of a PostgreSQL address{suggestion(name, known)}")
        allowed = _ALLOWED.get(name)
        if allowed and value not in allowed:
            raise ConfigurationError(f"IDENTITY_DATABASE_URL: {name} is {', '.join(allowed[:-1])} or {allowed[-1]}")
        if name in _WHOLE_NUMBERS and not value.isdecimal():
            raise ConfigurationError(f"IDENTITY_DATABASE_URL: {name} is a whole number")


def landing_url() -> str:
    """``IDENTITY_LANDING_URL``: where read batches wait until merged. Default a folder of IDENTITY_HOME."""
    return os.environ.get("IDENTITY_LANDING_URL") or str(home() / "landing")


def sources_folder() -> Path:
    """``IDENTITY_SOURCES``: the folder of source YAML files. Default ``sources`` of the project, in a clone that of the package."""
    if given := os.environ.get("IDENTITY_SOURCES"):
        return Path(given).expanduser().absolute()
    folder = project()
    return PACKAGE / "sources" if folder == PACKAGE.parent else folder / "sources"


def allowed_private_hosts() -> tuple[str, ...]:
    """``IDENTITY_ALLOW_PRIVATE_HOSTS``: hosts or CIDRs that the network guard lets through."""
    return tuple(part.strip() for part in os.environ.get("IDENTITY_ALLOW_PRIVATE_HOSTS", "").split(",") if part.strip())


def public_url() -> str:
    """``IDENTITY_PUBLIC_URL``: the address at which browsers reach the web server, where a proxy stands before it. Empty: none."""
    return os.environ.get("IDENTITY_PUBLIC_URL", "").strip().rstrip("/")


def failure_webhook() -> str:
    """``IDENTITY_FAILURE_WEBHOOK``: the address that is told of failed runs. Empty: none. It is a secret."""
    return os.environ.get("IDENTITY_FAILURE_WEBHOOK", "").strip()


def executor() -> str:
    """``IDENTITY_EXECUTOR``: ``in_process`` (default) or ``multiprocess``; others are not built yet and are refused."""
    return os.environ.get("IDENTITY_EXECUTOR") or "in_process"
