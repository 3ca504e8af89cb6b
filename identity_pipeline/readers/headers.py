"""The headers that people give to the columns of contact files: customary names in every spelling of them."""

from dataclasses import fields, replace
from typing import Any

from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.readers.names import CUSTOMARY as NAMES


def spellings(name: str) -> tuple[str, ...]:
    """``email_address``, ``Email Address``, ``email-address``, ``EmailAddress``, ``EMAIL ADDRESS`` and the like."""
    words = name.split("_")
    titled = [word.capitalize() for word in words]
    upper = [word.upper() if word in {"id", "zip"} else word.capitalize() for word in words]
    first = [titled[0], *words[1:]]
    camel = [words[0], *titled[1:]]
    found = [mark.join(style) for style in (words, titled, upper, first, [word.upper() for word in words]) for mark in "_ -"]
    return tuple(dict.fromkeys([*found, *("".join(style) for style in (titled, upper, camel, words))]))


def _spelled(names: FieldMap) -> FieldMap:
    changed: dict[str, Any] = {
        f.name: tuple(s for name in getattr(names, f.name) for s in spellings(name)) for f in fields(names) if f.name != "deleted_when"
    }
    flags = tuple((s, value) for name, value in names.deleted_when for s in spellings(name))
    return replace(names, **changed, deleted_when=flags)


CUSTOMARY = _spelled(NAMES)
"""The field map of contact files. A source's ``mapping:`` overrides it."""
