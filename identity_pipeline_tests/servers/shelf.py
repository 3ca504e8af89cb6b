"""A store of files in memory, which lists them with versions, two on a page."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from identity_pipeline.readers.files import Content, Entry, Page


class Shelf:
    """A store in memory: name → (version, content). ``faults`` are raised one by one in the middle of what is read."""

    at_once = 1

    def __init__(self, **held: tuple[str, bytes]) -> None:
        self.held = held
        self.faults: list[Exception] = []
        self.opened: list[tuple[str, str]] = []
        self.pages: list[str] = []
        self.modified: dict[str, datetime] = {}

    def page(self, token: str) -> Page:
        """Two files, or less at the end."""
        at, names = int(token or 0), list(self.held)
        self.pages.append(token)
        entries = [self._entry(name) for name in names[at : at + 2]]
        return Page(entries, str(at + 2) if at + 2 < len(names) else "")

    def stat(self, name: str) -> Entry | None:
        """One file."""
        return self._entry(name) if name in self.held else None

    def _entry(self, name: str) -> Entry:
        version, body = self.held[name]
        return Entry(name, version, len(body), self.modified.get(name))

    @contextmanager
    def open(self, entry: Entry, known: str) -> Iterator[Content]:
        """Its bytes."""
        self.opened.append((entry.name, known))
        yield Content(self._chunks(self.held[entry.name][1]), size=len(self.held[entry.name][1]))

    def close(self) -> None:
        """Nothing to end."""

    def _chunks(self, body: bytes) -> Iterator[bytes]:
        yield body[:5]
        if self.faults:
            raise self.faults.pop(0)
        yield body[5:]
