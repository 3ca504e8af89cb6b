"""`identity-pipeline sources new`: a declaration to fill in, made from the connector's own form."""

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from identity_pipeline.cli import output
from identity_pipeline.connectors import connector, modules
from identity_pipeline.connectors.base import Connector, Setting
from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.declarations.folder import load
from identity_pipeline.declarations.source import FILL_IN, Source, check_free

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PLAIN = re.compile(r"[A-Za-z][\w./:@+-]*")
_WIDTH = 100
Config = dict[str, Any]


@click.command()
@click.argument("source_type")
@click.argument("name")
@click.option(
    "--file", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write here, instead of NAME.yaml in IDENTITY_SOURCES."
)
def new(source_type: str, name: str, path: Path | None) -> None:
    """Write a commented YAML file for a source NAME of SOURCE_TYPE, to fill in.

    Secrets stand in it as names of environment variables. A file that is there is never overwritten.
    """
    if name in modules() and source_type not in modules():
        raise click.UsageError(f"the source type comes first: identity-pipeline sources new {name} {source_type}")
    if not _NAME.fullmatch(name):
        raise click.BadParameter("NAME is lower-case letters, digits and _, first a letter, at most 63")
    try:
        check_free(name)
        cls = connector(source_type)
    except (ConfigurationError, ValueError) as error:
        raise click.BadParameter(str(error)) from None
    declared = load(settings.sources_folder())
    if name in declared.sources or any(problem.name == name for problem in declared.problems):
        raise ConfigurationError(f"a source {name!r} is declared already in {settings.sources_folder()}: choose another name")
    path = path or settings.sources_folder() / f"{name}.yaml"
    config = starting_config(cls, source_type, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(declaration(cls, source_type, name, config))
    except FileExistsError:
        raise ConfigurationError(f"{path} is there already and was not changed: remove it, or name another with --file") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written (errno {error.errno}): make the folder writable, or use --file") from None
    click.echo(str(path))
    needed = [value["env"] for value in config.values() if isinstance(value, dict)]
    if needed:
        output.say(f"set {', '.join(needed)}, or store the secret with `identity-pipeline credentials set` and write {{credential: NAME}}")
    if FILL_IN in json.dumps(config):
        output.say(f"replace {FILL_IN} in it")
    output.say(f"then: identity-pipeline sources check {name}")


def starting_config(cls: type[Connector], source_type: str, name: str) -> Config:
    """The settings that have to stand in the file, with values that a declaration accepts.

    Raises:
        ConfigurationError: the connector accepts none (a fault of the connector).
    """
    form = cls.settings()
    schema = cls.model_json_schema()["properties"]
    config = {field.name: _variable(name, field) if field.secret else _placeholder(schema[field.name]) for field in form if field.required}
    # Of a choice of secrets (a password or a private key) the first one that satisfies the connector.
    choices = [[], *([field] for field in form if field.secret and not field.required)]
    for more in choices:
        tried = config | {field.name: _variable(name, field) for field in more}
        if _accepted(source_type, name, tried):
            return tried
    Source(name=name, source_type=source_type, config=config).resource()
    return config


def _accepted(source_type: str, name: str, config: Config) -> bool:
    try:
        Source(name=name, source_type=source_type, config=config).resource()
    except ConfigurationError:
        return False
    return True


def _variable(name: str, field: Setting) -> dict[str, str]:
    return {"env": f"{name}_{field.name}".upper()}


def _placeholder(schema: dict[str, Any]) -> Any:
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    if kind in {"integer", "number"}:
        return schema.get("minimum", 1)
    return {"boolean": False, "array": [FILL_IN], "object": {}}.get(str(kind), FILL_IN)


def declaration(cls: type[Connector], source_type: str, name: str, config: Config) -> str:
    """The text of the file."""
    return "\n".join(_lines(cls, source_type, name, config)) + "\n"


def _lines(cls: type[Connector], source_type: str, name: str, config: Config) -> Iterator[str]:
    title = (cls.__doc__ or source_type).partition("\n")[0]
    yield from _comment("", f"{title} Settings: identity-pipeline sources types {source_type}")
    yield from ("sources:", f"  - name: {name}", f"    source_type: {source_type}", "    config:")
    for field in cls.settings():
        yield from _comment("      ", field.help)
        if field.name in config:
            yield f"      {field.name}: {_yaml(config[field.name])}"
        elif field.secret:
            yield f"      # {field.name}: {_yaml(_variable(name, field))}"
        else:
            yield f"      # {field.name}: {_yaml(field.default)}"
    yield ""
    yield from _cursor(cls)
    yield from (
        "",
        '    # schedule: "*/30 * * * *"',
        "    # A full read also finds what was deleted in the source:",
        '    # full_refresh_schedule: "0 3 * * 0"',
    )
    if cls.lists_files:
        yield from ("    # Load when a file arrives:", "    # sensor: true")
    yield from (
        "    # Canonical field: source field, over the connector's own map:",
        "    # mapping: {email: work_email}",
        "    # Country of phone numbers that name none:",
        "    # default_region: DE",
        '    # owners: ["team:crm"]',
    )


def _cursor(cls: type[Connector]) -> Iterator[str]:
    columns = dict(cls.cursor_columns)
    if not columns:
        yield from _comment("    ", "This source type has no cursor: every load reads everything, and writes what changed.")
        return
    yield from _comment("    ", "The field of the high-water mark. Without it every load reads everything.")
    first, column = next(iter(columns.items()))
    others = [f"{other} ({each.type or 'int, timestamp or text'})" for other, each in columns.items() if other not in {first, "*"}]
    if others:
        yield from _comment("    ", f"Others: {', '.join(others)}.")
    if first == "*" or column.type is None:
        yield f"    # cursor_column: {'updated_at' if first == '*' else first}"
        yield from ("    # int, timestamp or text:", "    # cursor_type: timestamp")
    else:
        yield from (f"    cursor_column: {_yaml(first)}", f"    cursor_type: {column.type}")
    yield from _comment("    ", "Where the first load starts (inclusive). Afterwards the mark rules.")
    yield '    # cursor_after: "2026-01-01T00:00:00Z"' if column.type in {None, "timestamp"} else '    # cursor_after: "0"'


def _comment(indent: str, text: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(" ".join(text.split()), _WIDTH - len(indent) - 2, break_on_hyphens=False)]


def _yaml(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and yaml.safe_load(value) == value else json.dumps(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return json.dumps(value)
