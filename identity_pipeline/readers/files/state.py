"""What an earlier load read of a file, and whether that is all that is asked for now."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass

from identity_pipeline.core import cursor
from identity_pipeline.core.window import Window


@dataclass(frozen=True)
class FileState:
    """What was read: which content, by which rules, from which lower bound on.

    ``sha256`` is that of the unpacked bytes, ``version`` what the store calls them, ``since`` when they
    were first read, by the source's clock.
    """

    sha256: str = ""
    version: str = ""
    rules: str = ""
    column: str | None = None
    lower: str | None = None
    since: str = ""

    @classmethod
    def of(cls, text: str | None) -> "FileState":
        """The state that :attr:`text` wrote; an empty one for none or for what cannot be read."""
        with suppress(ValueError, TypeError):
            return cls(**json.loads(text or "{}"))
        return cls()

    @property
    def text(self) -> str:
        """The state as text."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}, sort_keys=True)

    def covers(self, window: Window, rules: str) -> bool:
        """True when all that ``window`` asks for was read from this content."""
        if not self.sha256 or self.rules != rules or window.full_refresh or window.objects:
            return False
        if self.lower is None:
            return True
        if window.cursor is None or window.lower is None or self.column != window.cursor.column:
            return False
        return cursor.lower_of(window.cursor.type, self.lower, window.lower) == self.lower
