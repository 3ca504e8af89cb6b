"""A load as everything in the store knows it: its number and its fencing token."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """A load that was opened: its number, its fencing token and what it is to do."""

    load_id: int
    source_name: str
    source_type: str
    run_id: str
    token: int
    full_refresh: bool = False
