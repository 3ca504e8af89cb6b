"""The balance of a load: what became of each record that was read."""

BALANCE = ("inserted", "updated", "unchanged", "duplicates", "quarantined", "filtered")
"""These add up to ``records_read``."""

COUNTS = ("records_read", *BALANCE, "deleted")
"""The counts of a load, as they are shown."""
