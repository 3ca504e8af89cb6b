"""Google's own description of its APIs, which comes with its client: judges what a server of ours answers."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import googleapiclient

_KINDS = {"string": str, "boolean": bool, "integer": int, "number": (int, float), "object": dict, "array": list, "any": object}


@cache
def document(api: str) -> dict[str, Any]:
    """The description of an API: ``people.v1``."""
    held = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents" / f"{api}.json"
    return json.loads(held.read_text("utf-8"))


def faults(api: str, schema: str, value: Any) -> list[str]:
    """Where ``value`` is not of this schema: fields that it does not have, and values of another type."""
    return list(_faults(document(api)["schemas"], {"$ref": schema}, value, schema))


def _faults(schemas: dict[str, Any], schema: dict[str, Any], value: Any, where: str) -> Any:
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    kind = schema["type"]
    if not isinstance(value, _KINDS[kind]) or (kind in {"integer", "number"} and isinstance(value, bool)):
        yield f"{where}: {type(value).__name__} for {kind}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of its values"
    elif kind == "array":
        for number, item in enumerate(value):
            yield from _faults(schemas, schema["items"], item, f"{where}[{number}]")
    elif kind == "object" and ("properties" in schema or "additionalProperties" not in schema):
        for name, item in value.items():
            if name in schema.get("properties", {}):
                yield from _faults(schemas, schema["properties"][name], item, f"{where}.{name}")
            else:
                yield f"{where}.{name}: no such field"
