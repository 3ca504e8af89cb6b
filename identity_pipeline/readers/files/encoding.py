"""Text encodings: which one a file is in, and the file as UTF-8 whichever it is.

The rule has no guess in it. A byte order mark decides; then what a person declares; then what the
server says, unless that is what servers say without having looked; then the zero bytes of UTF-16;
then UTF-8, proven over the whole file; then a fallback, with a warning that names the place. A byte
is never left out.

A file is UTF-8 too if only some bytes of it are not (:func:`_damaged`): those are read as
characters of their own (:data:`INVALID`), so that the rows that hold them can be told.
"""

import codecs
import re
from typing import BinaryIO

import numpy as np

from identity_pipeline.core.errors import SourceRejected
from identity_pipeline.core.window import ReadContext

_BLOCK = 2 * 2**20
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


_PRIVATE = 0x10FF00
"""Byte ``b`` that is not UTF-8 is read as the character ``_PRIVATE + b``, which no text has."""
INVALID = re.compile("[\U0010ff80-\U0010ffff]")
INVALID_UTF8 = (b"\xf4\x8f\xbe", b"\xf4\x8f\xbf")
"""How such characters begin in UTF-8."""
_MARK = "identity_pipeline.mark_invalid"


def _mark_invalid(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(_PRIVATE + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_MARK, _mark_invalid)


def shown(text: str) -> str:
    r"""``text`` with the bytes that are not UTF-8 as visible ``\xff``."""
    return INVALID.sub(lambda found: f"\\x{ord(found[0]) - _PRIVATE:02x}", text)


class Utf8:
    """A file in ``encoding`` from byte ``start`` on, read as UTF-8. ``damaged``: some bytes of it are not UTF-8."""

    def __init__(self, file: BinaryIO, encoding: str, start: int = 0, *, damaged: bool = False) -> None:
        self.encoding, self.damaged = encoding, damaged
        self._file, self._start = file, start
        self._decoder = None if encoding == "utf-8" and not damaged else self._new_decoder()
        file.seek(start)

    def _new_decoder(self) -> codecs.IncrementalDecoder:
        return codecs.getincrementaldecoder(self.encoding)(_MARK if self.damaged else "strict")

    def sample(self, size: int) -> tuple[str, bool]:
        """The text of the first ``size`` bytes, and whether that is all; :meth:`read` stays where it is."""
        at = self._file.tell()
        self._file.seek(self._start)
        head = self._file.read(size)
        whole = not self._file.read(1)
        self._file.seek(at)
        return self._new_decoder().decode(head, final=whole), whole

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


def as_utf8(  # noqa: PLR0911 - one return for each rule
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
            return _proven(file, encoding, len(mark), context, name=name, claim="its byte order mark says")
    if declared:
        encoding = codec(declared) or declared
        if _is_wide(encoding) and head and 0 not in head:
            raise SourceRejected(f"{name} is not {encoding} as the setting encoding says: it has no zero byte: correct the setting")
        return _proven(file, encoding, 0, context, name=name, claim="the setting encoding says")
    if reported and reported not in _UNLOOKED:
        if (0 in head or not _is_wide(reported)) and _fault(file, reported) is None:
            return Utf8(file, reported)
        context.warn(f"{name}: the server says that it is {reported}, which it is not")
    if wide := _wide(head):
        return _proven(file, wide, 0, context, name=name, claim="its zero bytes say")
    if (at := _fault(file, "utf-8")) is None:
        return Utf8(file, "utf-8")
    if (damaged := _damaged(file, 0, at, context, name)) is not None:
        return damaged
    candidates = [reported] if reported in _UNLOOKED - {"ascii", "utf-8"} else []
    encoding = next((one for one in (*candidates, fallback) if one and _fault(file, one) is None), _LAST_RESORT)
    context.warn(f"{name}: not UTF-8 at {_place(file, 'utf-8', at)}, read as {encoding}: set encoding to what the file is written in")
    return Utf8(file, encoding)


def _proven(file: BinaryIO, encoding: str, start: int, context: ReadContext, *, name: str, claim: str) -> Utf8:
    at = _fault(file, encoding, start)
    if at is None:
        return Utf8(file, encoding, start)
    if encoding == "utf-8" and (damaged := _damaged(file, start, at, context, name)) is not None:
        return damaged
    raise SourceRejected(
        f"{name} is not {encoding} as {claim}: {_place(file, encoding, at)} cannot be read: correct the setting encoding, or have the "
        "file written in one encoding throughout"
    )


def _damaged(file: BinaryIO, start: int, at: int, context: ReadContext, name: str) -> Utf8 | None:
    """The file as UTF-8 with some bytes that are not; None if it rather is something else.

    Text in another encoding hardly ever makes whole UTF-8 characters by chance, so it is UTF-8 if
    there is one of them for every four bytes that are of none.
    """
    utf8 = Utf8(file, "utf-8", start, damaged=True)
    whole = invalid = 0
    while block := utf8.read():
        signs = np.frombuffer(block.decode().encode("utf-32-le"), np.uint32)
        marks = int(np.count_nonzero(signs >= _PRIVATE + 0x80))
        whole, invalid = whole + int(np.count_nonzero(signs > 0x7F)) - marks, invalid + marks
    if whole * 4 < invalid:
        return None
    context.warn(
        f"{name}: {invalid:,} of its bytes are not UTF-8, the first is {_place(file, 'utf-8', at)}: the rows that hold them are rejected; "
        "have the file written in one encoding throughout"
    )
    return Utf8(file, "utf-8", start, damaged=True)


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


def _is_wide(encoding: str) -> bool:
    """True for encodings in which every line break holds a zero byte."""
    return encoding.startswith(("utf-16", "utf-32"))


def _wide(head: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of Western text is zero, and of all text some, among them those of line breaks."""
    if 0 not in head:
        return None
    pairs = len(head) // 2
    even, odd = head[0 : pairs * 2 : 2], head[1 : pairs * 2 : 2]
    low, high = even.count(0), odd.count(0)
    if pairs and max(low, high) > pairs * 0.4 and min(low, high) < pairs * 0.05:
        return "utf-16-le" if high > low else "utf-16-be"
    for zeros, texts, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        breaks = any(zero == 0 and sign in b"\r\n" for zero, sign in zip(zeros, texts, strict=True))
        if breaks and 0 not in texts and zeros.count(0) > max(3, pairs * 0.05):
            return encoding
    return None


def line_breaks(text: bytes) -> int:
    """How many line breaks: CR LF is one, CR and LF alone are one each."""
    returns = text.count(b"\r")
    return text.count(b"\n") + returns - (text.count(b"\r\n") if returns else 0)
