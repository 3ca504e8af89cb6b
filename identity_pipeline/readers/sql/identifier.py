"""The identifier guard: what a user wrote as a table's name, as the engine would read it.

The guard only *reads* a name. What goes into a statement is the catalog's own spelling, which the
engine's reader looks up with these parts as bound values and always quotes. So an odd name that
exists works, and a name that does more than name a table does not exist.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from identity_pipeline.core.errors import ConfigurationError

_LONGEST = 1000


@dataclass(frozen=True)
class Dialect:
    """What differs between engines in a table's name.

    ``parts`` names the parts of a full name, outermost first; ``default`` stands for those that a
    user may leave out. ``quote`` doubled inside quotes is itself. ``unquoted`` is what one part may
    be without quotes, and ``fold`` what the engine then takes it for. An engine may cut a longer name
    than ``max_length`` (bytes of UTF-8, or characters) and mean another table. ``denied`` matches schemas
    that are never read.
    """

    parts: tuple[str, ...]
    default: tuple[str, ...]
    quote: str
    unquoted: re.Pattern[str]
    fold: Callable[[str], str]
    max_length: int
    denied: re.Pattern[str]
    in_bytes: bool = True

    def readings(self, name: str, setting: str = "table") -> tuple[tuple[str, ...], ...]:
        """The full names that ``name`` may mean, of which the first that exists is meant: as the engine folds it, as it is spelled.

        A name in another Unicode form looks the same and may be another table: the form that was
        written comes first, NFC and NFD after it.

        Raises:
            ConfigurationError: it is not the name of one table; the message names ``setting``.
        """
        name = _visible(name, setting)
        forms = dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)))
        readings = dict.fromkeys(reading for form in forms for reading in self._full_names(form, setting))
        fitting = tuple(reading for reading in readings if all(self._length(part) <= self.max_length for part in reading))
        if not fitting:
            unit = "bytes" if self.in_bytes else "characters"
            raise ConfigurationError(f"{setting}: a part of {name!r} is longer than the {self.max_length} {unit} of any name")
        if any(self.denied.search(reading[-2]) for reading in readings):
            raise ConfigurationError(f"{setting}: {name!r} is in a schema of the system: only schemas with data are read")
        return fitting

    def _length(self, part: str) -> int:
        return len(part.encode()) if self.in_bytes else len(part)

    def _full_names(self, name: str, setting: str) -> Iterator[tuple[str, ...]]:
        parts = self._split(name, setting)
        missing = len(self.parts) - len(parts)
        if not 0 <= missing <= len(self.default):
            raise ConfigurationError(f"{setting}: {name!r} has {len(parts)} parts: expected {'.'.join(self.parts)}")
        given = self.default[:missing]
        yield (*given, *(text if quoted else self.fold(text) for text, quoted in parts))
        yield (*given, *(text for text, _ in parts))

    def quoted(self, parts: Iterable[str]) -> str:
        """A full name as a user can write it, every part in quotes. For messages, not for statements."""
        return ".".join(self.quote + part.replace(self.quote, self.quote * 2) + self.quote for part in parts)

    def _split(self, name: str, setting: str) -> list[tuple[str, bool]]:
        """The parts of ``name`` and whether each was quoted."""
        quote = re.escape(self.quote)
        part = re.compile(rf"{quote}(?P<quoted>(?:[^{quote}]|{quote}{quote})+){quote}|(?P<bare>{self.unquoted.pattern})")
        found, position = [], 0
        while match := part.match(name, position):
            inner = match["quoted"]
            found.append((match["bare"], False) if inner is None else (inner.replace(self.quote * 2, self.quote), True))
            position = match.end()
            if position == len(name):
                return found
            if name[position] != ".":
                break
            position += 1
        raise ConfigurationError(
            f"{setting}: {name!r} is not the name of a table: expected {'.'.join(self.parts)}; "
            f"a part with other characters than letters, digits and _ goes into quotes: {self.quoted([name])}"
        )


def _visible(name: str, setting: str) -> str:
    """``name`` without outer blanks.

    Raises:
        ConfigurationError: it is empty or holds a character that nobody can see.
    """
    name = name.strip(" ")
    if not 0 < len(name) <= _LONGEST:
        raise ConfigurationError(f"{setting}: expected the name of a table, found {len(name)} characters")
    if unseen := [c for c in name if unicodedata.category(c)[0] == "C" or unicodedata.category(c) in {"Zl", "Zp"}]:
        raise ConfigurationError(f"{setting}: the name holds the invisible character U+{ord(unseen[0]):04X}: type it again")
    return name


def close_names(wanted: str, known: Iterable[str]) -> str:
    """Words for an error: the known names most like ``wanted``, or the first few."""
    names = list(known)
    lowered = {name.lower(): name for name in names}
    close = [lowered[match] for match in difflib.get_close_matches(wanted.lower(), lowered, n=5, cutoff=0.5)]
    if close:
        return f"close to it is {', '.join(close)}"
    return f"there is {', '.join(names[:10])}" if names else "there is none"
