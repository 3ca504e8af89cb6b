"""Snowflake's names."""

import re

from identity_pipeline.readers.sql.identifier import Dialect

DIALECT = Dialect(
    parts=("database", "schema", "table"),
    default=(),
    quote='"',
    unquoted=re.compile(r"[A-Za-z_][A-Za-z0-9_$]*"),
    fold=str.upper,
    max_length=255,
    in_bytes=False,
    denied=re.compile(r"(?i)^(information_schema|(account|organization|reader_account|data_sharing)_usage)$"),
)
