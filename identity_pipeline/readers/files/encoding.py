"""Text encodings: which one a file is in, and the file as UTF-8 whichever it is.

The rule has no guess in it. A byte order mark decides; then what a person declares; then what the
server says, unless that is what servers say without having looked; then the zero bytes of UTF-16;
then UTF-8, proven over the whole file; then a fallback, with a warning that names the place. A byte
is never left out.
"""

import codecs
from typing import BinaryIO

from identity_pipeline.core.errors import SourceRejected
from identity_pipeline.core.window import ReadContext

_BLOCK = 8 * 2**20
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UNLOOKED = frozenset({"ascii", "iso8859-1", "cp1252", "utf-8"})
"""Charsets that servers name without having looked at the file."""
_LAST_RESORT = "iso8859-1"
"""Every byte is a character there."""


class Utf8:
    """A file in ``encoding`` from byte ``start`` on, read as UTF-8."""

    def __init__(self, file: BinaryIO, encoding: str, start: int = 0) -> None:
        self.encoding = encoding
        self._file = file
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
        file.seek(start)

    def read(self) -> bytes:
        """The next block, empty only at the end."""
        while True:
            block = self._file.read(_BLOCK)
            if self._decoder is None:
                return block
            text = self._decoder.decode(block, final=not block)
            if text or not block:
                return text.encode("utf-8", "backslashreplace")  # some codecs make lone surrogates


def codec(name: str) -> str | None:
    """Python's name of a text encoding, None if there is none."""
    try:
        found = codecs.lookup(name.strip())
        "".encode(found.name)  # refuses codecs that are no text encodings
    except (LookupError, ValueError):
        return None
    return found.name if found.incrementaldecoder else None


def as_utf8(
    file: BinaryIO,
    context: ReadContext,
    *,
    declared: str | None = None,
    reported: str | None = None,
    fallback: str = "cp1252",
    name: str = "file",
) -> Utf8:
    """A seekable ``file`` as UTF-8. ``declared`` is a person's word, ``reported`` the server's, ``name`` is for messages.

    Raises:
        SourceRejected: the file cannot be read as its byte order mark or ``declared`` says.
    """
    file.seek(0)
    head = file.read(65_536)
    reported = codec(reported) if reported else None
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return _proven(Utf8(file, encoding, len(mark)), file, len(mark), f"{name} is not {encoding} as its byte order mark says")
    if declared:
        encoding = codec(declared) or declared
        return _proven(Utf8(file, encoding), file, 0, f"{name} is not {encoding} as the setting encoding says")
    if reported and reported not in _UNLOOKED:
        if _fault(file, reported) is None:
            return Utf8(file, reported)
        context.warn(f"{name}: the server says that it is {reported}, which it is not")
    if wide := _wide(head):
        return _proven(Utf8(file, wide), file, 0, f"{name} is not {wide} as its zero bytes say")
    if (at := _fault(file, "utf-8")) is None:
        return Utf8(file, "utf-8")
    candidates = [reported] if reported in _UNLOOKED - {"ascii", "utf-8"} else []
    encoding = next((one for one in (*candidates, fallback) if one and _fault(file, one) is None), _LAST_RESORT)
    context.warn(f"{name}: not UTF-8 at {_place(file, 'utf-8', at)}, read as {encoding}: set encoding to what the file is written in")
    return Utf8(file, encoding)


def _proven(utf8: Utf8, file: BinaryIO, start: int, claim: str) -> Utf8:
    at = _fault(file, utf8.encoding, start)
    if at is not None:
        raise SourceRejected(
            f"{claim}: {_place(file, utf8.encoding, at)} cannot be read: correct the setting encoding, or have the file "
            "written in one encoding throughout"
        )
    file.seek(start)
    return utf8


def _fault(file: BinaryIO, encoding: str, start: int = 0) -> int | None:
    """Offset of the first byte that is not ``encoding``, None if the whole file is."""
    file.seek(start)
    decoder, at = codecs.getincrementaldecoder(encoding)(), start
    while True:
        block = file.read(_BLOCK)
        held = len(decoder.getstate()[0])
        if encoding != "utf-8" or held or not block or not block.isascii():
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return at - held + error.start
            except UnicodeError:  # some codecs give no place
                return at
        if not block:
            return None
        at += len(block)


def _place(file: BinaryIO, encoding: str, offset: int) -> str:
    """A byte offset and the number of its line, for a message."""
    file.seek(0)
    lines, left, carry = 1, offset, b""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    while left > 0 and (block := file.read(min(left, _BLOCK))):
        left -= len(block)
        text = carry + decoder.decode(block).encode("utf-8", "replace")
        carry = b"\r" if text.endswith(b"\r") else b""  # may be half of a CR LF
        lines += line_breaks(text) - len(carry)
    return f"byte {offset:,} (line {lines + len(carry):,})"


def _wide(head: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of Western text is zero."""
    pairs = len(head) // 2
    low, high = head[0 : pairs * 2 : 2].count(0), head[1 : pairs * 2 : 2].count(0)
    if pairs and max(low, high) > pairs * 0.4 and min(low, high) < pairs * 0.05:
        return "utf-16-le" if high > low else "utf-16-be"
    return None


def line_breaks(text: bytes) -> int:
    """How many line breaks: CR LF is one, CR and LF alone are one each."""
    returns = text.count(b"\r")
    return text.count(b"\n") + returns - (text.count(b"\r\n") if returns else 0)
