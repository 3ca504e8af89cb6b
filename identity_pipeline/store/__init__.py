"""The identity database: schema, ledger, landing, merge, quarantine, the embedded server.

Belongs here: everything that writes to the identity database or to the landing. Does not belong
here: Dagster, sources, and what a value means (``normalise``).
"""
