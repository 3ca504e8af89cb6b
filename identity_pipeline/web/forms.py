"""A source as a form: fields derived from the connector's settings and the declaration's model, and back.

There is no branch for a source type here: what a form needs stands in the connector.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from identity_pipeline.connectors import connector
from identity_pipeline.connectors.base import Setting
from identity_pipeline.core.canonical import CANONICAL
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.declarations.source import Source
from identity_pipeline.operations.drafts import Draft, looks_secret

_SOURCE_GROUPS = {
    "The cursor": ("cursor_column", "cursor_type", "cursor_after", "cursor_overlap"),
    "When it is loaded": ("schedule", "full_refresh_schedule", "sensor", "max_age_hours"),
    "What becomes of the records": ("mapping", "default_region", "max_deleted_share", "max_quarantined_share"),
    "About it": ("description", "owners"),
}
KEPT = ("credential", "env")
"""Where a secret is that is not typed here: in the credential store, in an environment variable."""


@dataclass(frozen=True)
class Field:
    """One field of the form. ``kind``: text, long, number, flag, choice or secret. ``kept``: where a secret is."""

    name: str
    label: str
    kind: str
    help: str
    required: bool = False
    value: str = ""
    choices: tuple[str, ...] = ()
    kept: str = ""
    error: str = ""
    warning: str = ""
    list: str = ""
    """What it can be filled with: ``fields`` of the preview."""


@dataclass(frozen=True)
class Group:
    """Fields that belong together; ``folded`` where most people need none of them."""

    title: str
    fields: tuple[Field, ...]
    folded: bool = False


def groups(source_type: str, entry: Mapping[str, Any], fault: str = "") -> list[Group]:
    """The form of a source type, filled with ``entry``. ``fault``: ``field: what is wrong``, which is shown at that field."""
    form, config = connector(source_type).settings(), entry.get("config", {})
    wanted = [_setting(each, config.get(each.name)) for each in form if each.required or each.secret]
    others = [_setting(each, config.get(each.name)) for each in form if not (each.required or each.secret)]
    name = Field(
        "name",
        "Name",
        "text",
        "Lower-case letters, digits and _. It is the asset's key too.",
        required=True,
        value=str(entry.get("name", "")),
    )
    made = [Group("What is read", (name, *wanted)), Group("More settings", tuple(others), folded=True)]
    schema = Source.model_json_schema()["properties"]
    known = connector(source_type).cursor_columns
    for title, names in _SOURCE_GROUPS.items():
        fields = tuple(_declared(each, schema[each], entry.get(each), known) for each in names if _offered(each, source_type))
        made.append(Group(title, fields, folded=title not in {"The cursor", "When it is loaded"}))
    return [replace(group, fields=tuple(_marked(each, fault) for each in group.fields)) for group in made if group.fields]


def _offered(name: str, source_type: str) -> bool:
    cls = connector(source_type)
    if name == "sensor":
        return cls.lists_files
    return not (name.startswith("cursor_") and not cls.cursor_columns)


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _marked(field: Field, fault: str) -> Field:
    place, _, message = fault.partition(": ")
    if message and (place == field.name or place.startswith(f"{field.name}.")):
        return replace(field, error=message)
    if field.kind in {"text", "long"} and field.name.startswith("config.") and looks_secret(field.value):
        return replace(
            field, warning="this looks like a secret, and this field is written into the file: keep it as {env: NAME} if it is one"
        )
    return field


def _setting(each: Setting, value: Any) -> Field:
    name, label = f"config.{each.name}", _label(each.name)
    if each.secret:
        kept, place = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else ("credential", "")
        return Field(name, label, "secret", each.help, each.required, str(place), KEPT, kept=str(kept))
    shown = each.default if value is None else value
    if each.type == "boolean":
        return Field(name, label, "flag", each.help, value="on" if shown else "")
    if " | " in each.type:
        return Field(name, label, "choice", each.help, each.required, _text(shown), tuple(each.type.split(" | ")))
    if each.type.startswith("list of ") or each.type == "object":
        return Field(
            name, label, "long", f"{each.help} One on a line." if each.type != "object" else each.help, each.required, _text(shown)
        )
    kind = "number" if each.type in {"integer", "number"} else "long" if "\n" in _text(shown) else "text"
    return Field(name, label, kind, each.help, each.required, _text(shown))


def _declared(name: str, schema: Mapping[str, Any], value: Any, known: Mapping[str, Any]) -> Field:  # noqa: PLR0911 - one for each kind
    types = {each.get("type"): each for each in schema.get("anyOf", (schema,))}
    help_ = schema.get("description", "")
    if name == "cursor_column":
        offered = [each for each in known if each != "*"]
        if offered and "*" not in known:
            return Field(name, _label(name), "choice", help_, value=_text(value), choices=("", *offered))
        return Field(name, _label(name), "text", help_, value=_text(value), list="fields")
    if name == "cursor_type":
        return Field(name, _label(name), "choice", help_, value=_text(value), choices=("", "timestamp", "int", "text"))
    if name == "mapping":
        text = "\n".join(f"{field}: {_text(names).replace(chr(10), ', ')}" for field, names in (value or {}).items())
        return Field(name, _label(name), "long", f"{help_}. One on a line, as in `email: work_email`.", value=text)
    if "boolean" in types:
        return Field(name, _label(name), "flag", help_, value="on" if value else "")
    if "array" in types:
        return Field(name, _label(name), "long", f"{help_}. One on a line.", value=_text(value))
    default = schema.get("default")
    shown = value if value is not None else default
    return Field(name, _label(name), "number" if "number" in types else "text", help_, value=_text(shown))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    if isinstance(value, Mapping):
        if len(value) == 1 and next(iter(value)) in {"env", "credential"}:
            kind, name = next(iter(value.items()))
            return f"{{{kind}: {name}}}"
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- And back -----------------------------------------------------------------------------------


def draft(
    source_type: str, form: Mapping[str, str], present: Mapping[str, Any] | None = None, taken: frozenset[str] = frozenset()
) -> Draft:
    """The declaration that a filled form asks for. ``present`` is what is declared now, ``taken`` the names of stored credentials.

    Raises:
        ConfigurationError: ``field: what cannot be read``.
    """
    name, typed = form.get("name", "").strip(), dict[str, str]()
    config: dict[str, Any] = {}
    for each in connector(source_type).settings():
        given = form.get(f"config.{each.name}", "")
        if each.secret:
            before = (present or {}).get("config", {}).get(each.name)
            if given:
                typed[each.name] = given
                config[each.name] = {"credential": _own(f"{name}_{each.name}", before, taken)}
            elif place := form.get(f"config.{each.name}.place", "").strip():
                config[each.name] = {"env" if form.get(f"config.{each.name}.kept") == "env" else "credential": place}
            continue
        value = _value(each, given.strip())
        declared_before = each.name in (present or {}).get("config", {})
        if value is not None and (each.required or value != each.default or (declared_before and each.default is not None)):
            config[each.name] = value
    entry: dict[str, Any] = {"name": name, "source_type": source_type}
    if config:
        entry["config"] = config
    return Draft(entry | dict(_level(form, present or {})), typed)


def _own(name: str, before: Any, taken: frozenset[str]) -> str:
    """The name under which a secret is stored that was typed here: never over one that is another source's."""
    if before == {"credential": name} or name not in taken:
        return name
    return next(free for number in range(2, 10_000) if (free := f"{name}_{number}") not in taken)


def _value(each: Setting, text: str) -> Any:  # noqa: PLR0911 - one for each kind
    place = f"config.{each.name}"
    if each.type == "boolean":
        return text in {"on", "true"}
    if not text:
        return None if each.default is None or each.default == "" or not isinstance(each.default, str) else ""
    if text.startswith("{env:") and text.endswith("}"):
        return {"env": text[5:-1].strip()}
    if each.type == "integer":
        return _number(place, text, int)
    if each.type == "number":
        return _number(place, text, float)
    if each.type.startswith("list of "):
        return [line.strip() for line in text.splitlines() if line.strip()]
    if each.type == "object":
        return _mapping(place, text)
    return text


def _number(place: str, text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ConfigurationError(f"{place}: is a number: {text[:20]!r} is none") from None


def _mapping(place: str, text: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{place}: write one on a line, as in `email: work_email`")
    return {str(key): each for key, each in value.items()}


def _level(form: Mapping[str, str], present: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    schema = Source.model_json_schema()["properties"]
    for name in (each for names in _SOURCE_GROUPS.values() for each in names):
        text = form.get(name, "").strip()
        types = {each.get("type") for each in schema[name].get("anyOf", (schema[name],))}
        if "boolean" in types:
            if text:
                yield name, True
        elif not text:
            continue
        elif name == "mapping":
            yield name, {field: _names(source) for field, source in _mapping(name, text).items()}
        elif "array" in types:
            yield name, [line.strip() for line in text.splitlines() if line.strip()]
        elif "number" in types:
            number = _number(name, text, float)
            if number != schema[name].get("default") or name in present:
                yield name, int(number) if number == int(number) else number
        else:
            yield name, text


def _names(source: Any) -> Any:
    found = [each.strip() for each in str(source).split(",")] if isinstance(source, str) else source
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def entry_of(source: Source) -> dict[str, Any]:
    """A declared source as its file has it: references as mappings, nothing that is only a default."""
    entry = {name: value for name, value in source.model_dump(exclude_unset=True).items() if name != "config"}
    if source.config:
        references = source.references
        entry["config"] = {name: _reference(str(value)) if name in references else value for name, value in source.config.items()}
    return entry


def _reference(text: str) -> dict[str, str]:
    kind, _, name = text.strip("{}").partition(": ")
    return {kind: name}


CANONICAL_FIELDS = tuple(name for name in CANONICAL.names if not name.endswith("_verdict"))
