"""Sources as declared: every YAML file of the sources folder, checked, with line numbers in errors.

A broken declaration is a :class:`Problem`; it never keeps the others from loading.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.utils import DISALLOWED_NAMES
from dagster._utils.schedules import is_valid_cron_schedule
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from identity_pipeline.connectors import connector
from identity_pipeline.connectors.base import Connector, CursorColumn
from identity_pipeline.core import cursor
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.text import to_text
from identity_pipeline.core.window import CursorType

CREDENTIAL = "credential:"
"""How a ``{credential: NAME}`` stands in a resource until the run looks it up."""
UNSET = "env:"
"""How an ``{env: NAME}`` stands in a resource while there is no such variable."""

_RESERVED = DISALLOWED_NAMES | {"ingest", "io_manager", "normalise_records"}
"""Names that Dagster refuses, and those that the code location uses itself: one such source would keep all from loading."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
    config: dict[str, Any] = Field(default={}, description="The connector's settings; a secret is {env: NAME} or {credential: NAME}")
    cursor_column: str | None = Field(default=None, description="Field of the high-water mark; without it every load reads everything")
    cursor_type: CursorType | None = Field(default=None, description="How cursor values compare")
    cursor_after: str | None = Field(default=None, description="Where the first load starts (inclusive); afterwards the mark rules")
    cursor_overlap: float | None = Field(
        default=None, ge=0, description="Taken off the mark before each read: seconds for timestamp, steps for int"
    )
    schedule: str | None = Field(default=None, description="Cron")
    sensor: bool = Field(default=False, description="Start a load when a file arrives (storage sources)")
    full_refresh_schedule: str | None = Field(default=None, description="Cron of full reads, which also find deletions")
    mapping: dict[str, str | list[str]] = Field(default={}, description="Canonical field -> source field(s), over the connector's own")
    default_region: str | None = Field(
        default=None, pattern=r"^[A-Z]{2}$", description="Country of phone numbers that name none (ISO 3166-1)"
    )
    owners: list[str] = Field(default=[], description="team:NAME or e-mail addresses")
    description: str | None = None
    max_deleted_share: float = Field(default=0.2, ge=0, le=1, description="A full refresh that would delete more deletes nothing")
    max_quarantined_share: float = Field(default=0.05, ge=0, le=1, description="Above it the asset check warns")
    max_age_hours: float | None = Field(default=None, gt=0, description="The freshness check warns when the newest record is older")

    @field_validator("name")
    @classmethod
    def _is_free(cls, value: str) -> str:
        return check_free(value)

    @field_validator("cursor_after", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return to_text(value) if isinstance(value, int | float | date | datetime) else value

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
        """The connector's field map with this source's ``mapping`` over it."""
        return self.connector.field_map.override(self.mapping)

    @property
    def cursor(self) -> tuple[CursorType, CursorColumn] | None:
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
                cursor.canonical(kind, self.cursor_after)
            except ConfigurationError as error:
                raise ConfigurationError(f"cursor_after: {error}") from None
        return kind, column

    def resource(self) -> Connector:
        """The connector as a Dagster resource; secrets stay names.

        Raises:
            ConfigurationError: a setting is missing, unknown, of the wrong type, or a literal secret.
        """
        cls = self.connector
        form = cls.form()
        secrets = {f["name"] for f in form if f["secret"]}
        values = {}
        if unknown := sorted(set(self.config) - set(cls.model_fields)):
            raise ConfigurationError(
                f"config.{unknown[0]}: is not a setting of {self.source_type}; known are {', '.join(cls.model_fields)}"
            )
        for field in form:
            if field["required"] and self.config.get(field["name"]) is None:
                raise ConfigurationError(f"config.{field['name']}: is missing: {field['help']}")
        for name, value in self.config.items():
            if isinstance(value, Mapping) and set(value) == {"env"}:
                if not isinstance(value["env"], str) or not _VARIABLE.fullmatch(value["env"]):
                    raise ConfigurationError(
                        f"config.{name}: {{env: NAME}} takes the name of an environment variable: letters, digits and _, first no digit"
                    )
                # Dagster looks variables up when it plans a run. One that is not set would fail the whole tick of a schedule,
                # other sources' runs included; so this run starts, and says what is missing.
                late = value["env"] not in os.environ and _any_text(cls, name)
                values[name] = f"{UNSET}{value['env']}" if late else dg.EnvVar(value["env"])
            elif isinstance(value, Mapping) and set(value) == {"credential"}:
                values[name] = f"{CREDENTIAL}{value['credential']}"
            elif name in secrets and value is not None:
                raise ConfigurationError(
                    f"config.{name}: is a secret and must not stand here: write {{env: NAME}} with the name of an environment variable, "
                    "or {credential: NAME}"
                )
            else:
                values[name] = value
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigurationError(f"config.{_first(error, cls)}") from None


def _any_text(cls: type[Connector], setting: str) -> bool:
    info = cls.model_fields.get(setting)
    return info is not None and info.annotation is str and not info.metadata


def _first(error: ValidationError, cls: type[BaseModel]) -> str:
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


@dataclass(frozen=True)
class Problem:
    """What is wrong with a declaration, and where."""

    file: str
    line: int
    name: str | None
    message: str

    def __str__(self) -> str:
        """``file:line: name: message``."""
        return f"{self.file}:{self.line}: {f'{self.name}: ' if self.name else ''}{self.message}"


@dataclass(frozen=True)
class Declarations:
    """All sources of a folder that are right, and the problems of the others."""

    sources: dict[str, Source]
    problems: list[Problem]

    def source(self, name: str) -> Source:
        """The source of that name.

        Raises:
            ConfigurationError: there is none, or its declaration is broken.
        """
        if name in self.sources:
            return self.sources[name]
        for problem in self.problems:
            if problem.name == name:
                raise ConfigurationError(str(problem))
        raise ConfigurationError(f"no source is called {name!r}; declared are {', '.join(self.sources) or 'none'}")


def load(folder: Path) -> Declarations:
    """Read every ``*.yaml`` and ``*.yml`` of ``folder``."""
    sources: dict[str, Source] = {}
    problems: list[Problem] = []
    for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        for found in _file(path):
            if isinstance(found, Problem):
                problems.append(found)
            elif found[1].name in sources:
                problems.append(Problem(path.name, found[0], found[1].name, "name: another source has it already: choose another name"))
            else:
                sources[found[1].name] = found[1]
    return Declarations(sources, problems)


def _file(path: Path) -> Iterator[Problem | tuple[int, Source]]:
    try:
        text = path.read_text("utf-8")
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            value = loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        yield Problem(path.name, mark.line + 1 if mark else 1, None, f"is not YAML: {error.problem or error.context}")
        return
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        yield Problem(path.name, 1, None, f"cannot be read ({type(error).__name__}): mend or remove the file")
        return
    if value is None:
        return
    entries = value.get("sources") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        yield Problem(path.name, 1, None, "sources: is missing: a file holds `sources:` and below it a list")
        return
    assert root is not None  # noqa: S101 - it gave the mapping above
    (_, nodes), *more = [pair for pair in root.value if pair[0].value == "sources"]
    if more:
        yield Problem(path.name, more[0][0].start_mark.line + 1, None, "sources: stands twice: put all sources below the first one")
        return
    for entry, node in zip(entries, nodes.value, strict=True):
        yield _entry(path.name, entry, node)


def _entry(file: str, entry: object, node: yaml.Node) -> Problem | tuple[int, Source]:
    line = node.start_mark.line + 1
    if not isinstance(entry, dict):
        return Problem(file, line, None, "a source is a mapping with name, source_type and config")
    name = entry.get("name") if isinstance(entry.get("name"), str) else None
    try:
        source = Source.model_validate(entry)
        source.resource()
        _ = source.cursor, source.field_map
        if source.sensor and source.connector.group != "files":
            raise ConfigurationError("sensor: only storage sources have one: use schedule")
        if source.sensor and not hasattr(source.connector, "list_objects"):
            raise ConfigurationError(f"sensor: {source.source_type} reads one address and lists nothing: use schedule")
    except ValidationError as error:
        message = _first(error, Source)
    except ConfigurationError as error:
        message = str(error)
    else:
        return line, source
    field = re.match(r"[\w.]+", message)
    return Problem(file, _line(node, field[0].split(".") if field else []), name, message)


def _line(node: yaml.Node, path: list[str]) -> int:
    """Line of the deepest part of ``path`` that stands in the file."""
    line = node.start_mark.line + 1
    for part in path:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        found = next(((key, value) for key, value in pairs if key.value == part), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def json_schema() -> dict[str, Any]:
    """JSON Schema of a sources file, for editors."""
    schema = Source.model_json_schema()
    definitions = schema.pop("$defs", {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["sources"],
        "properties": {"sources": {"type": "array", "items": schema}},
        "$defs": definitions,
    }
