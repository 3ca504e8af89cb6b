"""Who asks Azure Blob Storage: by the account's key, a signature, a connection string, or a token of Entra.

Microsoft's library signs with a key. What it makes is a shared access signature (SAS) that lets read and
list one container for less than an hour: so key, signature and connection string are all asked with alike,
by a query that no message shows.
"""

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Protocol
from urllib.parse import parse_qsl

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.secret import TokenProvider
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers import entra
from identity_pipeline.readers.extras import missing
from identity_pipeline.readers.http.guard import check_url

SCOPE = "https://storage.azure.com/.default"
UNSIGNED, FEW_RIGHTS = "AuthenticationFailed", "AuthorizationPermissionMismatch"
"""Codes of refusals about which only who signed can say more."""
_BEFORE, _AFTER = timedelta(minutes=15), timedelta(minutes=40)
"""How long before and after it is made our own signature holds: clocks differ."""
_KEPT = 900.0
"""Seconds for which one is used."""
_ENDS_SOON = timedelta(days=14)
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_QUERY = re.compile(r"[\w%=&.:,+/~-]+", re.ASCII)
_WAYS = (
    "set one way to sign in: account with account_key; account with sas_token; connection_string; account with tenant_id, client_id and "
    "client_secret; or, for whatever identity this machine has, account with ambient_credentials: true"
)


class Signer(Protocol):
    """One way to prove who asks."""

    def query(self) -> str:
        """What the query of an address is to hold, empty for nothing."""
        ...

    def headers(self) -> dict[str, str]:
        """Headers to send."""
        ...

    def advice(self, code: str, now: datetime) -> str:
        """What to do about a refusal by this code, at this time of the server's; empty where there is no more to say than in general."""
        ...


@dataclass(frozen=True)
class AzureAccess:
    """Where the account is, and who asks: in exactly one of these ways. ``ambient``: the identity that this machine has.

    ``endpoint`` is the address of its blob service, if that is not the one that the public cloud gives it.
    """

    account: str = ""
    endpoint: str = ""
    key: TokenProvider | None = field(default=None, repr=False)
    sas: TokenProvider | None = field(default=None, repr=False)
    connection: TokenProvider | None = field(default=None, repr=False)
    app: entra.App | None = None
    ambient: bool = False

    def opened(self, container: str, context: ReadContext) -> "tuple[str, Signer]":
        """The address of the blob service, and what signs for ``container``.

        Raises:
            ConfigurationError: there is no way to sign in, or more than one, or it is none.
        """
        if sum(map(bool, (self.key, self.sas, self.connection, self.app, self.ambient))) != 1:
            raise ConfigurationError(_WAYS)
        if self.connection:
            return self._by_connection(self.connection, container, context)
        place = self._place(self.endpoint or f"https://{_account(self.account)}.blob.core.windows.net")
        if self.key:
            return place, _Key(_account(self.account), container, self.key)
        if self.sas:
            return place, _Sas(_sas(self.sas.token()), context)
        return place, _Bearer(self.app or entra.Ambient(SCOPE))

    def _by_connection(self, held: TokenProvider, container: str, context: ReadContext) -> "tuple[str, Signer]":
        # https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string
        pairs = (pair.partition("=") for pair in held.token().strip().strip(";").split(";"))
        given = {name.strip().lower(): value.strip() for name, _, value in pairs}
        account = given.get("accountname", "")
        if self.account not in {"", account}:
            raise ConfigurationError("connection_string is for another account than account: correct one, or leave account empty")
        place = self.endpoint or given.get("blobendpoint")
        if not place and account:
            scheme, suffix = given.get("defaultendpointsprotocol", "https"), given.get("endpointsuffix", "core.windows.net")
            place = f"{scheme}://{_account(account)}.blob.{suffix}"
        if place and account and "accountkey" in given:
            return self._place(place), _Key(_account(account), container, held, given["accountkey"])
        if place and "sharedaccesssignature" in given:
            return self._place(place), _Sas(_sas(given["sharedaccesssignature"]), context)
        raise ConfigurationError(
            "connection_string: expected AccountName and AccountKey, or BlobEndpoint and SharedAccessSignature, as the portal shows it; "
            "for an emulator too, with its BlobEndpoint"
        )

    def _place(self, url: str) -> str:
        return check_url(url, self.setting).rstrip("/")

    @property
    def setting(self) -> str:
        """The setting that says where the account is."""
        return "endpoint_url" if self.endpoint else "connection_string" if self.connection else "account"


@dataclass
class _Key:
    """The key of the account, or the one inside its connection string."""

    account: str
    container: str
    held: TokenProvider = field(repr=False)
    inside: str | None = field(default=None, repr=False)
    _made: str = field(default="", init=False, repr=False)
    _until: float = field(default=0.0, init=False, repr=False)

    def query(self) -> str:
        if time.monotonic() > self._until:
            self._made, self._until = self._sas(), time.monotonic() + _KEPT
            self.held.learn(self._made)
        return self._made

    def headers(self) -> dict[str, str]:
        return {}

    def advice(self, code: str, now: datetime) -> str:
        if code != UNSIGNED:
            return ""
        away = datetime.now(UTC) - now
        if away > _BEFORE or -away > _AFTER:
            return (
                f"the clock of this machine is {abs(away.total_seconds()) / 60:,.0f} minutes {'fast' if away > _BEFORE else 'slow'}: set it"
            )
        return "the key does not belong to the account: check account, and give the key as it is now"

    def _sas(self) -> str:
        try:
            from azure.storage.blob import ContainerSasPermissions, generate_container_sas  # noqa: PLC0415 - only where it is used
        except ImportError:
            raise missing("azure") from None
        now = datetime.now(UTC)
        key = self.held.token().strip() if self.inside is None else self.inside
        rights = ContainerSasPermissions(read=True, list=True)
        try:
            return generate_container_sas(
                self.account, self.container, account_key=key, permission=rights, start=now - _BEFORE, expiry=now + _AFTER
            )
        except ValueError:  # its text may hold the key
            raise ConfigurationError("the account's key is none: copy it whole, as the portal shows it") from None


@dataclass
class _Sas:
    """A signature that somebody made, as a query."""

    given: str = field(repr=False)
    context: ReadContext

    def __post_init__(self) -> None:
        self._says = dict(parse_qsl(self.given))

    def query(self) -> str:
        ends = self._moment("se")
        if ends and datetime.now(UTC) < ends < datetime.now(UTC) + _ENDS_SOON:
            self.context.warn(f"sas_ends: the SAS holds until {ends:%Y-%m-%d %H:%M} UTC: give a new one before then")
        return self.given

    def headers(self) -> dict[str, str]:
        return {}

    def advice(self, code: str, now: datetime) -> str:
        says, begins, ends = self._says, self._moment("st"), self._moment("se")
        if code == FEW_RIGHTS:
            has = f" and has sp={says['sp'][:16]}" if says.get("sp", "").isalpha() else ""
            return f"the SAS has to let read and list (sp=rl){has}: make another"
        if code != UNSIGNED:
            return ""
        if ends and ends <= now:
            return f"the SAS has expired ({ends:%Y-%m-%d %H:%M} UTC): make a new one"
        if begins and begins > now:
            return f"the SAS does not hold before {begins:%Y-%m-%d %H:%M} UTC: wait, or make a new one"
        if says.get("sr", "c") not in {"c", "d"}:
            return "the SAS is for one blob: make one for the container"
        return (
            "the SAS is not accepted: it is for another account or container, was not copied whole, or its key or policy was changed: "
            "make a new one"
        )

    def _moment(self, name: str) -> datetime | None:
        try:
            moment = datetime.fromisoformat(self._says[name])
        except (KeyError, ValueError):
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass
class _Bearer:
    """A token of Entra."""

    of: entra.App | entra.Ambient

    def query(self) -> str:
        return ""

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.of.token()}", "x-ms-date": formatdate(usegmt=True)}

    def advice(self, code: str, now: datetime) -> str:  # noqa: ARG002 - as the protocol has it
        return "give the app or identity the role Storage Blob Data Reader on the container" if code == FEW_RIGHTS else ""


def _account(name: str) -> str:
    """The name of an account, which becomes part of a host's name.

    Raises:
        ConfigurationError: it is none.
    """
    if not _ACCOUNT.fullmatch(name):
        raise ConfigurationError("account: expected the name of a storage account, 3 to 24 small letters and digits")
    return name


def _sas(text: str) -> str:
    """A signature as a query.

    Raises:
        ConfigurationError: it is none.
    """
    found = text.strip().removeprefix("?")
    if not _QUERY.fullmatch(found) or "sig" not in dict(parse_qsl(found)):
        raise ConfigurationError("sas_token: expected the token alone, all that follows the ? of a SAS URL, its signature included")
    return found
