"""What several connectors read with: HTTP, JSON APIs, files, SQL, and the names that people give to fields.

Belongs here: paging, retries, parsing, streaming, and the checks on hosts and identifiers. Does not
belong here: one vendor's contract (``connectors``), Dagster, and anything that writes.
"""
