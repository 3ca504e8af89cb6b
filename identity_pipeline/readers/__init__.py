"""What several connectors read with: HTTP APIs, CSV, files behind addresses, SQL, and the network guard.

Belongs here: paging, retries, parsing, streaming, and the checks on hosts and identifiers. Does not
belong here: one vendor's contract (``connectors``), Dagster, and anything that writes.
"""
