"""Which files of a store are to be read: those whose version no load has read, and in which order."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial

from identity_pipeline.core import cursor
from identity_pipeline.core.errors import ConfigurationError, ContractBroken
from identity_pipeline.core.file_version import FileVersion
from identity_pipeline.core.window import Window
from identity_pipeline.readers.files.store import Entry, Page, Store
from identity_pipeline.readers.http.retry import Retry

_ALWAYS = datetime.min.replace(tzinfo=UTC)


def age(entry: Entry) -> tuple[datetime, str]:
    """What files are ordered by: what was modified last comes last, then by name."""
    return entry.modified or _ALWAYS, entry.name


@dataclass(frozen=True)
class Listing:
    """The files of ``store`` against what ``window`` knows of them. Other ``rules`` read the same content again.

    With ``newest_only`` all but the file that was modified last are left alone; that one is known only if it was read last,
    since what other files said has replaced what it says.
    """

    store: Store
    window: Window
    rules: str
    retry: Retry
    newest_only: bool = False

    def changed(self) -> list[Entry]:
        """The files to read, the one modified last at the end; what was left out is counted in the context.

        Raises:
            ConfigurationError: ``window.objects`` names a file that is not there.
            ContractBroken: a page leads back to one that was seen.
            PipelineError: as the store raises it, after every attempt.
        """
        window = self.window
        if window.objects:
            return sorted(map(self._named, window.objects), key=age)
        found, newest, total, read = list[Entry](), list[Entry](), 0, list[Entry]()
        for page in self._pages():
            total += len(page.entries)
            if self.newest_only:
                newest = sorted([*newest, *page.entries], key=age)[-1:]
            else:
                for entry in page.entries:
                    (read if self._is_read(entry) else found).append(entry)
            if window.limit is not None and found:
                break
        found += [entry for entry in newest if not self._is_read(entry)]
        found += self._after(found, read)
        window.context.files_unchanged += (len(newest) if self.newest_only else total) - len(found)
        if not total and window.files:
            window.context.warn(
                f"no file is listed, and {len(window.files):,} have been read before: nothing is deleted for that; look whether the place, "
                "the prefix and the pattern are still right"
            )
        return sorted(found, key=age)

    def _after(self, found: list[Entry], read: list[Entry]) -> list[Entry]:
        """What was read, and has to be once more, after older files that came late: rows of files modified later have to win.

        A cursor does not spare it: where it is empty, or counts whole days, the order alone tells which of two rows is the newer.
        """
        oldest = min(map(age, found), default=None)
        again = [entry for entry in read if entry.modified and age(entry) > oldest] if oldest else []
        if again:
            self.window.context.log(f"{len(again):,} files are read once more: an older one came late, and theirs are the newer rows")
        return again

    def known(self, entry: Entry) -> FileVersion:
        """What was read of the file, if that is all that is asked for now; an empty one if not."""
        before = self.window.files.get(entry.name)
        return before if before and self._covers(before) and (not self.newest_only or before.load_id == self._last) else FileVersion()

    def _pages(self) -> Iterator[Page]:
        token, seen = "", set[str]()
        while True:
            page = self.retry(partial(self.store.page, token))
            self.window.context.pages += 1
            yield page
            if not page.following:
                return
            if page.following in seen:
                raise ContractBroken("the list of files does not end: a page leads back to one before it: report this, and try again later")
            seen.add(token := page.following)

    def _named(self, name: str) -> Entry:
        entry = self.retry(partial(self.store.stat, name))
        if entry is None:
            raise ConfigurationError(f"objects: the source has no file {name[:200]!r}")
        return entry

    def _is_read(self, entry: Entry) -> bool:
        return bool(entry.version) and self.known(entry).version == entry.version

    @cached_property
    def _last(self) -> int:
        """The load that read files last."""
        return max((version.load_id for version in self.window.files.values()), default=0)

    def _covers(self, before: FileVersion) -> bool:
        window = self.window
        if not before.sha256 or before.rules != self.rules or window.full_refresh or window.objects:
            return False
        if before.lower is None or window.by_mark:
            return True
        if window.cursor is None or window.lower is None or before.column != window.cursor.column:
            return False
        return cursor.lower_of(window.cursor.type, before.lower, window.lower) == before.lower
