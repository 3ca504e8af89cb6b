"""Sources become Dagster resources, assets, schedules and checks here, and nowhere else.

Belongs here: what needs both Dagster and the store: reading the declarations, the ops, the mark as
asset metadata. Does not belong here: how a source is read (``connectors``, ``readers``), what a
value means (``normalise``), what is written (``store``).
"""
