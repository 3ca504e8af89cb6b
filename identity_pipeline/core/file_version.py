"""A version of a file that was read whole: what decides whether the file is read again."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class FileVersion:
    """What was read of one file, and how.

    ``version`` is what the store calls the content, empty where it has no name for it; ``size`` (bytes)
    and ``modified`` are as the store listed them. ``sha256`` is that of the unpacked bytes. ``rules``
    changes whenever the same bytes would be read otherwise. Records whose ``column`` lies below
    ``lower`` were left out, because a person asked for that; None: none were. ``load_id`` is the load
    that read it, 0 until one is committed.
    """

    version: str = ""
    size: int | None = None
    modified: datetime | None = None
    sha256: str = ""
    rules: str = ""
    column: str | None = None
    lower: str | None = None
    load_id: int = 0
