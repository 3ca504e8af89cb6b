"""BigQuery's names: a path, with or without backticks, of which no part can hold a dot or a backtick."""

import re
import unicodedata
from dataclasses import dataclass

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.readers.sql.identifier import Dialect

_PARTS = (
    re.compile(r"(?:[a-z0-9][a-z0-9.-]*\.[a-z]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"),
    re.compile(r"[A-Za-z0-9_]{1,1024}"),
)
_PATH = re.compile(r"`[^`]+`(?:\.`[^`]+`)*|[^`]+(?:\.`[^`]+`)?")
_OF_A_TABLE = ("L", "M", "N", "Pc", "Pd", "Zs")
"""Categories of Unicode that a table's name is made of: no wildcard, no decorator of a partition or a time."""


@dataclass(frozen=True)
class BigQueryDialect(Dialect):
    """A path is split from the right: the project may hold dots (``example.com:project``)."""

    def _split(self, name: str, setting: str) -> list[tuple[str, bool]]:
        parts = name.replace("`", "").rsplit(".", 2)
        shapes = [*_PARTS, None][-len(parts) :]
        fitting = [
            all(map(_of_a_table, part)) if shape is None else bool(shape.fullmatch(part)) for part, shape in zip(parts, shapes, strict=True)
        ]
        if not _PATH.fullmatch(name) or not all(fitting) or not parts[-1]:
            raise ConfigurationError(
                f"{setting}: {name!r} is not the name of a table: expected {'.'.join(self.parts)}, of letters, digits, "
                "hyphens, underscores and (a table's) blanks; a wildcard or a decorator names no single table"
            )
        return [(part, True) for part in parts]


def _of_a_table(character: str) -> bool:
    return unicodedata.category(character).startswith(_OF_A_TABLE)


DIALECT = BigQueryDialect(
    parts=("project", "dataset", "table"),
    default=(),
    quote="`",
    unquoted=re.compile(r"[\w-]+"),
    fold=lambda text: text,
    max_length=1024,
    denied=re.compile(r"(?i)^information_schema$"),
)
