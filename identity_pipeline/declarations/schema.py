"""The JSON Schema of a sources file, for editors."""

from typing import Any

from identity_pipeline.declarations.source import Source


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    schema = Source.model_json_schema()
    definitions = schema.pop("$defs", {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["sources"],
        "properties": {"sources": {"type": "array", "items": schema}},
        "$defs": definitions,
    }
