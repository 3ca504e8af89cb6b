"""A source as declared: the model of one entry of the YAML, and the connector that it asks for."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from identity_pipeline.connectors import connector
from identity_pipeline.connectors.base import Connector, CursorColumn, Secret
from identity_pipeline.core import cursor as cursors
from identity_pipeline.core.cursor import Cursor, CursorType
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.core.secret import Reference, StoredToken
from identity_pipeline.core.text import to_text
from identity_pipeline.dagster_internals import DISALLOWED_NAMES, is_valid_cron_schedule
from identity_pipeline.declarations import references
from identity_pipeline.normalise import country
from identity_pipeline.readers.files import is_signed

FILL_IN = "FILL_IN"
"""Stands in a new declaration where a person has to write something."""
_RESERVED = DISALLOWED_NAMES | {"ingest", "io_manager", "normalise_records"}
"""Names that Dagster refuses, and those that the code location uses itself: one such source would keep all from loading."""


def check_free(name: str) -> str:
    """``name`` if nothing else in the code location is called so.

    Raises:
        ValueError: something is.
    """
    if name in _RESERVED or name.endswith(("__read", "__commit")):
        raise ValueError(f"{name!r} has a meaning of its own in Dagster or in this project: choose another name")
    return name


class Source(BaseModel):
    """One declared source. Field names are those of the YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$", description="Unique; also the asset key and the resource key")
    source_type: str = Field(description="One of the connectors: `identity-pipeline sources types`")
    config: dict[str, Annotated[Any, BeforeValidator(references.parse)]] = Field(
        default={}, description="The connector's settings; a secret is {env: NAME} or {credential: NAME}"
    )
    cursor_column: str | None = Field(default=None, description="Field of the high-water mark; without it every load reads everything")
    cursor_type: CursorType | None = Field(default=None, description="How cursor values compare")
    cursor_after: str | None = Field(default=None, description="Where the first load starts (inclusive); afterwards the mark rules")
    cursor_overlap: float | None = Field(
        default=None, ge=0, description="Subtracted from the mark before each read: seconds for timestamp, numbers for int"
    )
    schedule: str | None = Field(default=None, description="Cron of loads, such as `*/30 * * * *`")
    sensor: bool = Field(default=False, description="Start a load when a file arrives (file sources)")
    full_refresh_schedule: str | None = Field(default=None, description="Cron of full reads, which also find deletions")
    mapping: dict[str, str | list[str]] = Field(default={}, description="Canonical field -> source field(s), over the connector's own")
    default_region: str | None = Field(
        default=None, pattern=r"^[A-Z]{2}$", description="Country of phone numbers that name none (ISO 3166-1)"
    )
    owners: list[str] = Field(default=[], description="team:NAME or e-mail addresses, shown in Dagster")
    description: str | None = Field(default=None, description="Shown in Dagster and on the source's page")
    max_deleted_share: float = Field(default=0.2, ge=0, le=1, description="A full refresh that would delete more deletes nothing")
    max_quarantined_share: float = Field(default=0.05, ge=0, le=1, description="Above it the asset check and `ingest` warn")
    max_age_hours: float | None = Field(
        default=None, gt=0, description="The source counts as stale when its last load is older; default twice the schedule's interval"
    )
    _resource: Connector | None = PrivateAttr(default=None)

    @field_validator("name")
    @classmethod
    def _is_free(cls, value: str) -> str:
        return check_free(value)

    @field_validator("cursor_after", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return to_text(value) if isinstance(value, int | float | date | datetime) else value

    @field_validator("default_region", mode="before")
    @classmethod
    def _is_no_boolean(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError(f'YAML reads this as {str(value).lower()}: write the country in quotes, "NO" for Norway')  # noqa: TRY004 - pydantic's
        return value

    @field_validator("default_region")
    @classmethod
    def _is_country(cls, value: str | None) -> str | None:
        if value is not None and country.alpha_2(value) is None:
            raise ValueError(f"{value} is no country of ISO 3166-1: write two capital letters such as DE")
        return value

    @field_validator("schedule", "full_refresh_schedule")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        if value is not None and not is_valid_cron_schedule(value):
            raise ValueError("is not a cron expression such as '*/30 * * * *'")
        return value and " ".join(value.split())

    @field_validator("owners")
    @classmethod
    def _are_owners(cls, value: list[str]) -> list[str]:
        for owner in value:
            if not re.fullmatch(r"team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+", owner):
                raise ValueError("an owner is team:NAME or an e-mail address")
        return value

    @model_validator(mode="after")
    def _cursor_is_whole(self) -> "Source":
        if self.cursor_column is None and (self.cursor_type or self.cursor_after or self.cursor_overlap is not None):
            raise ValueError("cursor_column: is missing; cursor_type, cursor_after and cursor_overlap need it")
        return self

    @property
    def connector(self) -> type[Connector]:
        """The connector class."""
        return connector(self.source_type)

    @property
    def field_map(self) -> FieldMap:
        """The connector's field map with this source's ``mapping``, and the setting that names the id, over it.

        Raises:
            ConfigurationError: a key of ``mapping`` is no canonical field, or two places name another field as the id.
        """
        made, setting = self.connector.field_map.override(self.mapping), self.connector.id_setting
        named = self.config.get(setting)
        if not named:
            return made
        if "external_id" in self.mapping and made.external_id != (named,):
            raise ConfigurationError(
                f"mapping: external_id is {', '.join(made.external_id)}, and config.{setting} names {named}: leave it out of mapping"
            )
        return made.override({"external_id": named})

    @property
    def references(self) -> dict[str, Reference]:
        """Setting → where its value is kept, for those that do not stand in the declaration."""
        return {name: value for name, value in self.config.items() if isinstance(value, Reference)}

    @property
    def settings_fingerprint(self) -> str:
        """A short text that changes when another thing would be read: type, settings, cursor, which secrets."""
        decides = [self.source_type, {name: str(value) for name, value in self.config.items()}, self.cursor_column, self.cursor_type]
        return hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def cursor_kind(self) -> tuple[CursorType, CursorColumn] | None:
        """The cursor's type and how its column works, None without a cursor.

        Raises:
            ConfigurationError: the connector has no such cursor, or not of this type.
        """
        if self.cursor_column is None:
            return None
        known = self.connector.cursor_columns
        column = known.get(self.cursor_column) or known.get("*")
        if column is None:
            offered = ", ".join(known) or "none: leave it out, every load reads everything"
            raise ConfigurationError(f"cursor_column: {self.source_type} cannot use {self.cursor_column!r}; it offers {offered}")
        kind = self.cursor_type or column.type
        if kind is None:
            raise ConfigurationError("cursor_type: is missing: int, timestamp or text")
        if column.type is not None and kind != column.type:
            raise ConfigurationError(f"cursor_type: {self.cursor_column} is a {column.type} cursor, not {kind}")
        if self.cursor_after is not None:
            try:
                cursors.canonical(kind, self.cursor_after)
            except ConfigurationError as error:
                raise ConfigurationError(f"cursor_after: {error}") from None
        return kind, column

    def load_spec(self, connector: Connector) -> LoadSpec:
        """What a load has to know of this source, read by ``connector``."""
        kind = self.cursor_kind
        overlap = kind[1].overlap if kind and self.cursor_overlap is None else self.cursor_overlap or 0
        return LoadSpec(
            self.name,
            self.source_type,
            self.field_map,
            self.cursor(connector),
            connector.order,
            overlap,
            self.cursor_after,
            self.default_region,
            tuple((names,) if isinstance(names, str) else tuple(names) for names in self.mapping.values()),
            self.settings_fingerprint,
            connector.reads_whole,
            connector.reads_snapshot,
            self.max_deleted_share,
            connector.timezone,
        )

    def cursor(self, connector: Connector) -> Cursor | None:
        """The cursor as ``connector``, which knows how its values are written, reads it."""
        found = self.cursor_kind
        return connector.cursor(self.cursor_column, found[0]) if found and self.cursor_column else None

    def check(self) -> None:
        """Judge the declaration as a whole, without a connection.

        Raises:
            ConfigurationError: something in it cannot be.
        """
        connector = self.resource()
        if not any(isinstance(value, Reference) and isinstance(getattr(connector, name), str) for name, value in self.config.items()):
            connector.judge()  # else a text is known only when it is read
        _ = self.cursor_kind, self.field_map
        if self.sensor and self.connector.group != "files":
            raise ConfigurationError("sensor: only file sources have one: use schedule")
        if self.sensor and not self.connector.lists_files:
            raise ConfigurationError(f"sensor: {self.source_type} reads one address and lists nothing: use schedule")

    def resource(self) -> Connector:
        """The connector as Dagster shows it: what is kept elsewhere is named, not looked up.

        Raises:
            ConfigurationError: a setting is missing, unknown, of the wrong type, or a literal secret.
        """
        if self._resource is None:
            self._resource = self._declared()
        return self._resource

    def _declared(self) -> Connector:
        cls, known = self.connector, {each.name: each for each in self.connector.settings()}
        if unknown := sorted(set(self.config) - set(known)):
            raise ConfigurationError(f"config.{unknown[0]}: is not a setting of {self.source_type}; known are {', '.join(known)}")
        for name, each in known.items():
            if each.required and self.config.get(name) is None:
                raise ConfigurationError(f"config.{name}: is missing: {each.help}")
        values: dict[str, Any] = {}
        for name, value in self.config.items():
            if isinstance(value, Reference):
                if not known[name].secret and not _is_text(cls, name):
                    raise ConfigurationError(f"config.{name}: takes {known[name].type}: write it here; {value} is for secrets and texts")
                values[name] = Secret.of(value) if known[name].secret else str(value)
            elif known[name].secret and value is not None:
                raise ConfigurationError(
                    f"config.{name}: is a secret and must not stand here: write {{env: NAME}} with the name of an environment variable, "
                    "or {credential: NAME}"
                )
            elif isinstance(value, str) and is_signed(value):
                raise ConfigurationError(
                    f"config.{name}: is a signed address, which is a secret, and must not stand here: write {{env: NAME}} with the name "
                    "of an environment variable"
                )
            else:
                values[name] = value
        return _made(cls, values)

    def connect(
        self, redactor: Redactor, database_url: Callable[[], str], *, secrets: bool = True, typed: Mapping[str, str] = MappingProxyType({})
    ) -> Connector:
        """The connector that can read: every reference resolved, each secret known to ``redactor`` before anyone has it.

        Without ``secrets`` those stay where they are kept: for what needs the settings and no connection. ``typed`` holds secrets
        that are kept nowhere yet, by their settings: of a declaration that somebody is about to write.

        Raises:
            ConfigurationError: a variable is not set, a credential is not there or does not open, or a value does not fit its setting.
        """
        declared, values = self.resource(), dict[str, Any]()
        for name in type(declared).model_fields:
            values[name] = getattr(declared, name)
        for name, reference in self.references.items():
            if isinstance(values[name], Secret) and not secrets:
                continue
            place = f"{self.name}: config.{name}"
            if name in typed:
                provider = StoredToken(_saying(typed[name]), redactor)
            else:
                provider = references.provider_of(reference, place, database_url, redactor)
            text = provider.token()
            values[name] = Secret.bound(reference, provider) if isinstance(values[name], Secret) else text
        for value in values.values():
            if isinstance(value, str):
                redactor.learn_query(value)
        try:
            return _made(type(declared), values)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.name}: {error}") from None


def differing(declared: Connector, arrived: Connector) -> list[str]:
    """Names of the settings in which a run's configuration is not what the source declares."""
    return [name for name in type(declared).model_fields if getattr(declared, name) != getattr(arrived, name)]


def _saying(text: str) -> Callable[[], str]:
    return lambda: text


def _made(cls: type[Connector], values: dict[str, Any]) -> Connector:
    try:
        return cls(**values)
    except ValidationError as error:
        raise ConfigurationError(f"config.{first_fault(error, cls)}") from None


def _is_text(cls: type[Connector], setting: str) -> bool:
    """True for a setting that takes any text."""
    info = cls.model_fields[setting]
    return info.annotation is str and not info.metadata


def first_fault(error: ValidationError, cls: type[BaseModel]) -> str:
    """The first fault of a validation as ``field: what is wrong``, without the value that was given."""
    fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{place}: is not a setting; known are {', '.join(cls.model_fields)}"
    if fault["type"] == "missing":
        return f"{place}: is missing"
    if place == "name" and fault["type"] != "value_error":
        return "name: use lower-case letters, digits and _, first a letter, at most 63"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
