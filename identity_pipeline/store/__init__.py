"""The identity database: schema, lease, ledger, landing, merge, sweep, quarantine.

Belongs here: everything that writes records and loads to the identity database, or to the landing.
Does not belong here: Dagster, sources, secrets (``credentials``), the server we bring (``embedded``),
and what a value means (``normalise``).
"""
