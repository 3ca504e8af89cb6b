"""CSV files as batches of text: dialect, encoding, ragged rows, faults of quoting.

Nothing is guessed twice and nothing is dropped. An empty cell is null, quoted or not: most writers
quote without meaning. Blank lines and rows of empty cells hold no record. A row with too few cells
is filled with nulls. One with too many (even if they are empty: its others may have moved, unless
all rows of the file end so), with text after a closing quote, with bytes that are not of its
encoding, or with a cell above :data:`MAX_FIELD` carries its reason in
:data:`~identity_pipeline.core.fieldmap.REJECTED`; line numbers are those an editor shows. A fault
of quoting that spans lines stops the read: nobody can say which records it swallowed.

A file without rows gives one table without rows, so that its header can be judged.

Arrow parses every stretch of the file that is strictly well-formed, Python's ``csv`` the others;
the outcome is the same.
"""

import codecs
import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from identity_pipeline.core.errors import ConfigurationError, LimitExceeded, SourceRejected
from identity_pipeline.core.fieldmap import REJECTED
from identity_pipeline.core.text import to_json
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files import ids
from identity_pipeline.readers.files.content import HEAD, TAIL, demand_printable, demand_text
from identity_pipeline.readers.files.encoding import INVALID, INVALID_UTF8, Utf8, as_utf8, codec, line_breaks, shown

EXTRA = "_extra"
"""Field of a rejected record that holds the cells beyond the header, as a JSON list."""
ROW = "_row"
"""Field of a rejected record that holds its row as it stands in the file (of a long one the beginning)."""
MAX_COLUMNS = 2_000
MAX_FIELD = 1_000_000
"""Characters of one cell."""
MAX_ROWS = 50_000
_BLOCK = 2 * 2**20
"""Bytes that are parsed at a time. Of more, what lies between two blocks costs memory, and nothing is faster."""
_MAX_RECORD = 32 * 2**20
_SHORT = 2**13
"""Bytes up to which Python's ``csv`` has parsed a stretch before Arrow has begun."""
_KEPT = 1_000
"""Characters that are kept of a cell that is too large."""
_ROW_KEPT = 100_000
_SAMPLE = 2**20
_SAMPLED_ROWS = 100

_DELIMITERS = ",;\t|"
_SEP = r'"?sep=([\x01-\x09\x0b\x0c\x0e-\x7f])"?(?:\r\n|\r|\n|\Z)'
_INVISIBLE = re.compile("[\ufeff\u200b-\u200f\u2060\u00ad]")


@dataclass(frozen=True)
class Dialect:
    r"""How a file is written. What is None is found out: the delimiter among ``, ; tab |``, the encoding by rule.

    ``quote`` empty means that nothing is quoted. ``escape`` is a character that takes the meaning
    off the next one (``\\``), beside doubled quotes. ``skip_lines`` lines stand above the header.
    ``fallback_encoding`` is tried when the bytes
    are not UTF-8 and nothing declares what they are.

    Raises:
        ConfigurationError: a value cannot be used.
    """

    delimiter: str | None = None
    encoding: str | None = None
    quote: str = '"'
    escape: str | None = None
    header: bool = True
    skip_lines: int = 0
    fallback_encoding: str = "cp1252"

    def __post_init__(self) -> None:
        if self.delimiter in {"tab", "\\t"}:
            object.__setattr__(self, "delimiter", "\t")
        signs = [sign for sign in (self.delimiter, self.quote or None, self.escape) if sign is not None]
        if any(len(sign) != 1 or sign in "\r\n\x00" for sign in signs) or len(set(signs)) != len(signs):
            raise ConfigurationError("delimiter, quote and escape must be different single characters (delimiter may be 'tab')")
        for name in (self.encoding, self.fallback_encoding):
            if name is not None and codec(name) is None:
                raise ConfigurationError(f"encoding {name[:40]!r} is unknown: use one such as utf-8, cp1252 or iso-8859-15")

    def options(self, delimiter: str) -> dict[str, Any]:
        """Options for Python's ``csv.reader``."""
        return {
            "delimiter": delimiter,
            "quotechar": self.quote or None,
            "quoting": csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            "escapechar": self.escape,
        }


def read_csv(
    file: BinaryIO, dialect: Dialect, context: ReadContext, *, name: str = "file", charset: str | None = None
) -> Iterator[pa.Table]:
    """Batches of at most :data:`MAX_ROWS` records of a seekable ``file``, every column text.

    ``name`` stands for the file in messages; ``charset`` is what the server says about its encoding.

    Raises:
        SourceRejected: it is no CSV, is empty, cannot be decoded as declared, or its quoting is at
            fault across lines.
        LimitExceeded: more than :data:`MAX_COLUMNS` columns, or a record without end.
    """
    file.seek(0)
    head = file.read(HEAD)
    file.seek(max(0, file.seek(0, io.SEEK_END) - TAIL))
    demand_text(head, file.read(), name)
    utf8 = as_utf8(file, context, declared=dialect.encoding, reported=charset, fallback=dialect.fallback_encoding, name=name)
    demand_printable(utf8.sample(HEAD)[0], name)
    for table in _Parse(utf8, dialect, context, name).tables():
        for start in range(0, max(1, table.num_rows), MAX_ROWS):
            yield ids.read_as_meant(table.slice(start, MAX_ROWS), context, name)


def field_names(cells: Iterable[str]) -> list[str]:
    """Names for the columns under these header cells: trimmed, NFC, none blank, none twice.

    A blank one becomes ``column_3``, the second ``name`` becomes ``name_2``.
    """
    names: dict[str, None] = {}
    for number, cell in enumerate(cells, 1):
        base = " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFC", cell)).split()) or f"column_{number}"
        if base.startswith("@identity."):
            base = base[1:]
        name, copy = base, 1
        while name in names or name in {EXTRA, ROW}:
            copy += 1
            name = f"{base}_{copy}"
        names[name] = None
    return list(names)


class _Parse:
    """One pass over one file. ``_pending`` is what was read and not yet parsed, ``_line`` the number of its first line."""

    def __init__(self, source: Utf8, dialect: Dialect, context: ReadContext, name: str) -> None:
        self._source, self._dialect, self._context, self._name = source, dialect, context, name
        self._pending, self._line, self._end, self._suspect = b"", 1, False, False
        # the limit is the whole process's and only ever raised; ours is MAX_FIELD, with its own consequence
        csv.field_size_limit(max(csv.field_size_limit(), 2 * _MAX_RECORD))

    def tables(self) -> Iterator[pa.Table]:
        """Tables of some megabytes each, in the file's order."""
        self._more()
        announced = self._announced()
        for _ in range(self._dialect.skip_lines):
            self._take_line()
        announced = announced or (self._dialect.skip_lines and self._announced()) or None
        self._sample, self._sample_whole = self._source.sample(_SAMPLE)
        self._sample = re.sub(rf"\A(?:{_SEP})?(?:[^\r\n]*(?:\r\n|\r|\n)){{{self._dialect.skip_lines}}}(?:{_SEP})?", "", self._sample)
        self._delimiter = self._dialect.delimiter or announced or self._likeliest()
        self._options = self._dialect.options(self._delimiter)
        self._options["skipinitialspace"] = self._spaced = self._is_spaced()
        self._names = self._header()
        self._habit = self._surplus()
        signs = [self._delimiter, *self._dialect.quote]
        self._arrow = self._dialect.escape is None and not self._spaced and all(sign.isascii() for sign in signs)
        yielded = not self._names
        while True:
            # a whole block beside the rest: Arrow wants long stretches
            if len(self._pending) < _BLOCK:
                self._more()
            if not self._pending:
                break
            cut = len(self._pending) if self._end else self._boundary()
            table = self._fast(self._pending[:cut]) if self._arrow and cut > _SHORT else None
            if table is not None:
                table = _filled(table)
                self._suspect = self._suspect and not table.num_rows
            else:
                table, cut = self._slow()
                if not cut and not self._end:
                    if len(self._pending) >= _MAX_RECORD:
                        raise LimitExceeded(
                            f"{self._name}: the record at line {self._line:,} does not end within {_MAX_RECORD // 2**20} MB: "
                            "look for a quote that is never closed, or correct the setting quote"
                        )
                    self._more()
            self._take(cut)
            if table is not None and table.num_rows:
                yielded = True
                yield table
        if not yielded:
            yield _table(self._names, [], {})

    def _more(self) -> None:
        block = b"" if self._end else self._source.read()
        self._end = not block
        self._pending += block

    def _take(self, length: int) -> None:
        self._line += line_breaks(self._pending[:length])
        self._pending = self._pending[length:]

    def _take_line(self) -> None:
        """Leave out one line, however long it is."""
        while not (found := re.search(rb"\r\n|\r(?!\Z)|\n", self._pending)) and not self._end:
            self._more()
        self._take(found.end() if found else len(self._pending))

    def _announced(self) -> str | None:
        """The delimiter that Excel's first line ``sep=;`` names. The line is taken."""
        while len(self._pending) < len('"sep=;"\r\n') and not self._end:
            self._more()
        found = re.match(_SEP.encode(), self._pending)
        if not found:
            return None
        self._take(found.end())
        return found[1].decode()

    def _likeliest(self) -> str:
        """The delimiter that gives most of the first records as many cells as the first has, more than one."""
        best, score = ",", (0.0, 1)
        for delimiter in _DELIMITERS:
            if delimiter in {self._dialect.quote, self._dialect.escape}:
                continue
            counts = [len(cells) for cells in self._sampled(self._sample, self._dialect.options(delimiter))]
            if counts and counts[0] > 1 and (found := (counts.count(counts[0]) / len(counts), counts[0])) > score:
                best, score = delimiter, found
        return best

    def _sampled(self, sample: str, options: dict[str, Any]) -> list[list[str]]:
        """The first records, without the last one if it may be cut."""
        rows = []
        for cells in csv.reader(io.StringIO(sample, newline=""), **options):
            if len(rows) > _SAMPLED_ROWS:
                return rows
            if cells:
                rows.append(cells)
        return rows if self._sample_whole or len(rows) < 2 else rows[:-1]

    def _is_spaced(self) -> bool:
        """True if quotes stand apart from their delimiters (``1, "Lee, Ann"``), and most of such records are well-formed so."""
        quote, sign, mark = self._dialect.quote, re.escape(self._delimiter), re.escape(self._dialect.quote)
        if not quote or self._delimiter == " " or not re.search(rf"{sign} +{mark}", self._sample):
            return False
        # what stands inside an ordinary quoted cell says nothing: ``, ", "``
        outside = re.sub(rf"(\A|[\r\n]|{sign}){mark}(?:[^{mark}]|{mark}{mark})*+{mark}", r"\1", self._sample)
        if not re.search(rf"{sign} +{mark}", outside):
            return False
        close = self._sampled(self._sample, self._options)
        odd = sum(any(re.match(rf" +{re.escape(quote)}", cell) for cell in cells) for cells in close)
        apart, faults = [], 0
        reader = csv.reader(io.StringIO(self._closed(self._sample), newline=""), **self._options, strict=True, skipinitialspace=True)
        while len(apart) <= _SAMPLED_ROWS:
            try:
                apart.append(next(reader))
            except StopIteration:
                break
            except csv.Error:
                faults += 1
        even = [sum(len(cells) == len(rows[0]) for cells in rows if cells) / len(rows) for rows in (apart, close) if rows]
        return faults * 2 < odd and len(even) == 2 and even[0] >= even[1]

    def _closed(self, text: str) -> str:
        """``text`` without blanks between a closing quote and what ends its cell."""
        quote = re.escape(self._dialect.quote)
        return re.sub(rf"({quote}) +(?={re.escape(self._delimiter)}|[\r\n]|\Z)", r"\1", text)

    def _surplus(self) -> int:
        """How many empty cells stand beyond the header in (nearly) every row: then they are the file's way to end a row."""
        width = len(self._names)
        rows = self._sampled(self._sample, self._options)[self._dialect.header :]
        beyond = Counter(len(cells) - width for cells in rows if any(cells) and not any(cells[width:]))
        (count, times), *_ = beyond.most_common(1) or [(0, 0)]
        return count if count > 0 and len(rows) > 1 and times >= 0.9 * len(rows) else 0

    def _header(self) -> list[str]:
        """Names of the columns. The header's line is taken."""
        while True:
            text = self._pending.decode("utf-8", "ignore")
            stream = io.StringIO(text, newline="")
            reader = csv.reader(stream, **self._options, strict=True)
            try:
                cells = next((cells for cells in reader if any(cell.strip() for cell in cells)), None)
            except csv.Error as error:
                if self._end or "unexpected end" not in str(error):
                    raise SourceRejected(
                        f"{self._name}: the quoting of its first record is at fault: fix it, or correct the setting quote"
                    ) from None
                cells = None
            if self._end or (cells and stream.tell() < len(text)):
                break
            if len(self._pending) >= _MAX_RECORD:
                raise LimitExceeded(
                    f"{self._name}: its first record does not end within {_MAX_RECORD // 2**20} MB: it is not CSV as we know it"
                )
            self._more()
        if cells is None:
            if self._dialect.header:
                raise SourceRejected(f"{self._name} is empty, without even a header: check that the export ran")
            return []
        if len(cells) > MAX_COLUMNS:
            raise LimitExceeded(
                f"{self._name} has {len(cells):,} columns, the limit is {MAX_COLUMNS:,}: export fewer, or correct the setting delimiter"
            )
        if not self._dialect.header:
            return field_names("" for _ in cells)
        self._take(len(text[: stream.tell()].encode()))
        return field_names(map(shown, cells))

    def _boundary(self) -> int:
        """Where the last whole record of ``_pending`` ends, if its quoting is well-formed; 0 if none does."""
        text, quote = self._pending, self._dialect.quote.encode()
        # a CR at the very end may be half of a CR LF
        at = max(text.rfind(b"\n"), text.rfind(b"\r", 0, len(text) - 1))
        if not quote or at < 0:
            return at + 1
        inside = text.count(quote, 0, at) % 2
        while at >= 0 and inside:
            opening = text.rfind(quote, 0, at)
            at = max(text.rfind(b"\n", 0, opening), text.rfind(b"\r", 0, opening))
            inside = text.count(quote, max(at, 0), opening) % 2
        return at + 1

    def _well_formed(self, text: bytes) -> bool:
        """True if every quote opens or closes a cell or is doubled: then all parsers agree."""
        quote = self._dialect.quote.encode()
        if not quote or quote not in text:
            return True
        signs = np.frombuffer(text, np.uint8)
        found = np.flatnonzero(signs == quote[0])
        if len(found) % 2:
            return False
        fits = np.zeros(256, bool)
        fits[list(b"\r\n" + quote + self._delimiter.encode())] = True
        opening, closing = found[0::2], found[1::2]
        before = signs[opening[opening > 0] - 1]
        after = signs[closing[closing < len(signs) - 1] + 1]
        return bool(fits[before].all() and fits[after].all())

    def _fast(self, text: bytes) -> pa.Table | None:
        """``text`` as parsed by Arrow, None if anything about it is odd."""
        # Arrow would take a value's first character for a byte order mark
        if not text or text.startswith(codecs.BOM_UTF8) or not self._well_formed(text):
            return None
        if self._source.damaged and any(mark in text for mark in INVALID_UTF8):
            return None
        quote = self._dialect.quote
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(text),
                arrow_csv.ReadOptions(column_names=self._names, use_threads=False, block_size=len(text) + 1),
                arrow_csv.ParseOptions(
                    delimiter=self._delimiter, quote_char=quote or False, newlines_in_values=bool(quote) and quote.encode() in text
                ),
                arrow_csv.ConvertOptions(
                    check_utf8=False,
                    column_types=dict.fromkeys(self._names, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid:  # a ragged row, or blank lines only
            return None
        longest = (pc.max(pc.binary_length(column)).as_py() for column in table.columns)
        return None if any(length and length > MAX_FIELD for length in longest) else table

    def _slow(self) -> tuple[pa.Table | None, int]:
        """The whole records at the start of ``_pending`` and how many bytes they take."""
        pending = self._pending
        if not self._end:  # a character may be cut in two
            pending = pending[: max(pending.rfind(b"\n"), pending.rfind(b"\r", 0, len(pending) - 1)) + 1]
        text = pending.decode()
        stream = io.StringIO(text, newline="")
        reader = csv.reader(stream, **self._options, strict=True)
        rows: list[list[str]] = []
        rejected: dict[int, tuple[str, str | None, str]] = {}
        at = 0
        while True:
            line = self._line + reader.line_num
            try:
                cells = next(reader)
                reason = None
            except StopIteration:
                break
            except csv.Error as error:
                ended = "unexpected end" in str(error)
                if ended and not self._end:
                    break
                cells, reason = self._faulty(line, text[at : stream.tell()], ended)
            last = stream.tell() == len(text) and self._end and not text.endswith(("\n", "\r"))
            raw, at = text[at : stream.tell()], stream.tell()
            if not any(cells) or (len(cells) == 1 < len(self._names) and not cells[0].strip()):
                continue
            if self._source.damaged and INVALID.search(raw):
                reason = reason or f"not_utf8: line {line} holds bytes that are not UTF-8"
                cells = [shown(cell) for cell in cells]
            row, fault, extra = self._fitted(cells, line, last)
            if fault := reason or fault:
                rejected[len(rows)] = fault, extra, shown(raw.rstrip("\r\n")[:_ROW_KEPT])
            rows.append(row)
        used = len(text[:at].encode())
        return (_table(self._names, rows, rejected) if rows else None), used

    def _faulty(self, line: int, raw: str, ended: bool) -> tuple[list[str], str | None]:
        """The cells of a record whose quoting is at fault, as far as they can be made out, and what is wrong."""
        if self._spaced:
            with suppress(csv.Error):
                found = list(csv.reader(io.StringIO(self._closed(raw), newline=""), **self._options, strict=True))
                if len(found) == 1:
                    return found[0], None
        self._demand_one_line(line, raw, ended)
        self._suspect = True
        reason = f"unclosed_quote: line {line} ends inside a quote" if ended else f"stray_quote: line {line} has text after a closing quote"
        return self._lenient(raw), reason

    def _demand_one_line(self, line: int, raw: str, ended: bool) -> None:
        """Stop the read if a fault of quoting spans lines."""
        lines = line_breaks(raw.rstrip("\r\n").encode()) + 1
        if lines == 1:
            return
        fault = (
            f"line {line} opens a quote that is never closed, and {lines - 1:,} lines follow it"
            if ended
            else f"a quote that line {line} opens is closed in the middle of line {line + lines - 1}, before more text"
        )
        raise SourceRejected(
            f"{self._name}: {fault}: nobody can say which records are in there; fix the file, or correct the settings quote and escape"
        )

    def _lenient(self, raw: str) -> list[str]:
        """The cells of a line with a fault, as far as they can be made out."""
        return next(csv.reader(io.StringIO(raw, newline=""), **self._options), [])

    def _fitted(self, cells: list[str], line: int, last: bool) -> tuple[list[str], str | None, str | None]:
        """One cell for each column, why the record is rejected, and the cells that found no column."""
        width, count, reason = len(self._names), len(cells), None
        extra = cells[width:]
        usual = count in {width, width + self._habit}
        if count > width and (any(extra) or not usual):
            reason = f"extra_cells: line {line} has {count} cells, the header has {width}"
        elif self._suspect and not usual:
            reason = f"after_stray_quote: line {line} has {count} cells, the header has {width}, and a quote before it is at fault"
        elif count < width and last:
            reason = f"cut_off: line {line}, the last one, breaks off after {count} of {width} cells"
        elif count < width:
            self._context.warn(f"{self._name}: rows with fewer cells than the header were filled with nulls")
        self._suspect = self._suspect and not usual
        row = [*cells[:width], *[""] * (width - count)]
        for number, cell in enumerate(cells):
            if len(cell) > MAX_FIELD:
                reason = f"field_too_large: cell {number + 1} of line {line} has {len(cell):,} characters, the limit is {MAX_FIELD:,}"
                if number < width:
                    row[number] = cell[:_KEPT]
        kept = to_json([cell[:_KEPT] if len(cell) > MAX_FIELD else cell for cell in extra]) if reason and extra else None
        return row, reason, kept


def _table(names: list[str], rows: list[list[str]], rejected: dict[int, tuple[str, str | None, str]]) -> pa.Table:
    cells = zip(*rows, strict=True) if rows else [()] * len(names)
    columns = {name: pa.array([cell or None for cell in column], pa.string()) for name, column in zip(names, cells, strict=True)}
    if rejected:
        notes = [rejected.get(i, (None, None, None)) for i in range(len(rows))]
        for name, column in zip((REJECTED, EXTRA, ROW), zip(*notes, strict=True), strict=True):
            columns[name] = pa.array(column, pa.string())
    return pa.table(columns)


def _filled(table: pa.Table) -> pa.Table:
    """``table`` without the rows in which every cell is empty."""
    empty = None
    for column in table.columns:
        if not column.null_count:
            return table
        nulls = pc.is_null(column)
        empty = nulls if empty is None else pc.and_(empty, nulls)
    return table if empty is None else table.filter(pc.invert(empty))
