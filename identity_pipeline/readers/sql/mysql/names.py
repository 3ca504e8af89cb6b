"""MySQL's names."""

import re

from identity_pipeline.readers.sql.identifier import Dialect

DIALECT = Dialect(
    parts=("database", "table"),
    default=(),
    quote="`",
    # not digits only; MySQL takes every character above U+007F for a letter, blanks among them: those go into quotes here
    unquoted=re.compile(r"(?=\d*[^\W\d]|\d*\$)[\w$\u0300-\u036f\u3099\u309a]+"),
    fold=lambda text: text,  # whether case counts is the server's setting: the look-up in the catalog asks it
    max_length=64,
    in_bytes=False,
    denied=re.compile(r"(?i)^(mysql|sys|performance_schema|information_schema)$"),
)
