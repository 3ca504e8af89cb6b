"""The field map: which source field feeds which canonical field."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

from identity_pipeline.core.errors import ConfigurationError

REJECTED = "@identity.rejected"
"""Reserved column of a batch: why the reader rejects this record (``code: detail``), else null.

The detail may name a line number, never a value. Such a record goes to quarantine as it is.
"""

GONE = "@identity.gone"
"""Reserved column of a batch: ``true`` if the source tells only that the record went, and nothing else of it.

Its row keeps what is known and gets ``deleted_at`` or ``merged_into``; without a row there is nothing to keep.
"""


@dataclass(frozen=True)
class FieldMap:
    """Canonical field → source fields, most trusted first.

    ``external_id`` is the first of its fields that the source has. ``email`` and ``phone`` collect
    the values of all their fields (each may hold several, separated by ``;`` or as a JSON list).
    The others take the first value that is not blank, of a JSON list its first text. ``deleted_at`` is a time at which the source
    says the record went; ``deleted_when`` is ``field -> value`` that says so without a time.
    ``merged_into`` names the surviving id on the loser; ``absorbed`` lists the losers' ids on the
    survivor (``;``-separated or a JSON list).
    """

    external_id: tuple[str, ...] = ("id",)
    email: tuple[str, ...] = ()
    phone: tuple[str, ...] = ()
    full_name: tuple[str, ...] = ()
    first_name: tuple[str, ...] = ()
    last_name: tuple[str, ...] = ()
    company: tuple[str, ...] = ()
    job_title: tuple[str, ...] = ()
    street: tuple[str, ...] = ()
    city: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    postal_code: tuple[str, ...] = ()
    country: tuple[str, ...] = ()
    source_created_at: tuple[str, ...] = ()
    source_updated_at: tuple[str, ...] = ()
    deleted_at: tuple[str, ...] = ()
    deleted_when: tuple[tuple[str, str], ...] = ()
    merged_into: tuple[str, ...] = ()
    absorbed: tuple[str, ...] = ()

    def override(self, mapping: Mapping[str, str | Iterable[str]]) -> "FieldMap":
        """This map with a source's own ``mapping:`` laid over it.

        Raises:
            ConfigurationError: a key is not a canonical field.
        """
        known = {f.name for f in fields(self)} - {"deleted_when"}
        if unknown := sorted(set(mapping) - known):
            raise ConfigurationError(f"mapping: {unknown[0]!r} is not a canonical field; known are {', '.join(sorted(known))}")
        return replace(self, **{k: (v,) if isinstance(v, str) else tuple(v) for k, v in mapping.items()})

    def source_fields(self) -> tuple[str, ...]:
        """Every source field that the map reads, each once, in the map's order."""
        seen: dict[str, None] = {}
        for f in fields(self):
            for name in getattr(self, f.name):
                seen[name if isinstance(name, str) else name[0]] = None
        return tuple(seen)
