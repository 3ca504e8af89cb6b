"""The JSON Schema of a sources file, for editors."""

from collections.abc import Mapping
from typing import Any

from identity_pipeline.connectors import connectors
from identity_pipeline.connectors.base import Connector
from identity_pipeline.declarations.source import Source

_REFERENCE = {
    "description": "Where the value is kept: {env: NAME} or {credential: NAME}",
    "type": "object",
    "properties": {"env": {"type": "string"}, "credential": {"type": "string"}},
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}
_TO_REFERENCE = {"$ref": "#/$defs/Reference"}
_LIMITS = {"enum", "const", "pattern", "minLength", "maxLength", "format"}


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12: each source type with the settings that it takes."""
    entry = Source.model_json_schema()
    definitions = entry.pop("$defs", {}) | {"Reference": _REFERENCE}
    built = connectors()
    entry["properties"]["source_type"] |= {"enum": list(built)}
    entry["allOf"] = []
    for source_type, cls in built.items():
        config, needed = _config(cls, definitions)
        is_type = {"properties": {"source_type": {"const": source_type}}, "required": ["source_type"]}
        entry["allOf"].append({"if": is_type, "then": {"properties": {"config": config}, "required": needed}})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["sources"],
        "properties": {"sources": {"type": "array", "items": entry}},
        "$defs": definitions,
    }


def _config(cls: type[Connector], definitions: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The schema of a connector's ``config``, and ``["config"]`` if it must be there. Adds to ``definitions`` what it refers to."""
    schema = cls.model_json_schema()
    definitions |= {name: body for name, body in schema.get("$defs", {}).items() if name != "Secret"}
    secrets = {each.name for each in cls.settings() if each.secret}
    settings = {name: _setting(body, secret=name in secrets) for name, body in schema["properties"].items()}
    required = schema.get("required", [])
    return (
        {"type": "object", "properties": settings, "required": required, "additionalProperties": False},
        ["config"] if required else [],
    )


def _setting(body: Mapping[str, Any], *, secret: bool) -> dict[str, Any]:
    about = {name: value for name, value in body.items() if name in {"title", "description"}}
    if secret:
        return about | _TO_REFERENCE
    if body.get("type") == "string" and not _LIMITS & set(body):  # any text may be kept elsewhere
        plain = {name: value for name, value in body.items() if name not in about}
        return about | {"anyOf": [plain, _TO_REFERENCE]}
    return dict(body)
