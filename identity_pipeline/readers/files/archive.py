"""A ZIP archive that holds one file, unpacked as it streams in.

An archive has its directory at the end. It is read there, and not before: so nothing has to be stored
twice. What came before counts only because the directory then agrees with it: it lists exactly the
members that were met, with their sums. An archive that is cut has none.

https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from identity_pipeline.core.errors import SourceRejected, TruncatedBody

BEGINNINGS = (b"PK\x03\x04", b"PK\x05\x06")
"""The first bytes of an archive with members, and of one without."""
_LOCAL, _ENTRY, _END, _END_64, _LOCATOR_64, _SIGNATURE = (b"PK" + mark for mark in (b"\3\4", b"\1\2", b"\5\6", b"\6\6", b"\6\7", b"\5\5"))
_DESCRIPTOR = b"PK\x07\x08"
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _DESCRIBED_LATER = 0x2041, 0x0008
"""Flags: a member, or the directory, needs a password; sum and sizes stand behind the content."""
_IN_EXTRA = 0xFFFFFFFF
_PIECE = 2**18
_MEMBERS = 1_000
_SIDE = 10 * 2**20
"""Bytes that members which are no files of anybody's may hold."""
_OF_A_SYSTEM = re.compile(rb"(?:.*/)?(?:\._[^/]*|\.DS_Store|Thumbs\.db|desktop\.ini)|__MACOSX/.*", re.DOTALL)
_OF_A_DOCUMENT = re.compile(rb"\[Content_Types\]\.xml|mimetype|(?:_rels|docProps|xl|word|ppt|META-INF)/.*|Index/.*\.iwa", re.DOTALL)
_ALONE = "pack one file by itself"
_BROKEN = "its zip packing is damaged, or something else follows it"


def unzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The content of the one file in the archive.

    Raises:
        TruncatedBody: the archive breaks off or is damaged.
        SourceRejected: it holds no file, several, or too much beside it; needs a password; is packed by another method than deflate.
    """
    stream, met, found = _Stream(chunks), dict[int, int](), False
    while True:
        at = stream.at
        if (mark := stream.take(4)) != _LOCAL:
            break
        member = _member(stream)
        if member.is_file and found:
            raise SourceRejected(f"its zip archive holds several files: {_ALONE}")
        found, beside = found or member.is_file, 0
        for piece in member.content(stream):
            if member.is_file:
                yield piece
            elif (beside := beside + len(piece)) > _SIDE:
                raise SourceRejected(f"its zip archive holds too much beside the file: {_ALONE}")
        met[at] = member.sum
        if len(met) > _MEMBERS:
            raise SourceRejected(f"its zip archive holds more than {_MEMBERS:,} entries: {_ALONE}")
    listed = _listed(stream, mark)
    if listed != met:
        raise SourceRejected("its zip archive holds other files than its directory lists: pack it anew")
    if not found:
        raise SourceRejected(f"its zip archive holds no file: {_ALONE}")


class _Stream:
    """The bytes of the archive, taken in order; ``at`` is how many were."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._held, self.at = iter(chunks), b"", 0

    def some(self, most: int = _PIECE) -> bytes:
        """The next bytes, empty at the end."""
        while not self._held and (chunk := next(self._chunks, None)) is not None:
            self._held = chunk
        taken, self._held = self._held[:most], self._held[most:]
        self.at += len(taken)
        return taken

    def take(self, size: int) -> bytes:
        """So many bytes."""
        taken = b""
        while len(taken) < size:
            if not (more := self.some(size - len(taken))):
                raise TruncatedBody("its zip packing breaks off")
            taken += more
        return taken

    def unpack(self, form: str) -> tuple[int, ...]:
        """The numbers of a little-endian structure."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))

    def back(self, taken: bytes) -> None:
        """Give bytes back that were taken last."""
        self._held, self.at = taken + self._held, self.at - len(taken)


@dataclass
class _Member:
    """One member. ``sum`` and ``sizes`` (packed, unpacked) are what its header says until its content was read."""

    name: bytes
    method: int
    later: bool
    sum: int
    sizes: tuple[int, int]

    @property
    def is_file(self) -> bool:
        """True for what somebody packed; no folder, and none of the files that systems add."""
        return not self.name.endswith((b"/", b"\\")) and not _OF_A_SYSTEM.fullmatch(self.name)

    def content(self, stream: _Stream) -> Iterator[bytes]:
        """The content in pieces, all of it or an error."""
        begin, length, checked = stream.at, 0, 0
        try:
            for piece in self._inflated(stream) if self.method == _DEFLATED else self._plain(stream):
                length, checked = length + len(piece), zlib.crc32(piece, checked)
                yield piece
        except zlib.error:
            raise TruncatedBody(_BROKEN) from None
        sizes = stream.at - begin, length
        if self.later:
            self._described(stream, sizes)
        if (self.sum, self.sizes) != (checked, sizes):
            raise TruncatedBody(_BROKEN)

    def _plain(self, stream: _Stream) -> Iterator[bytes]:
        left = self.sizes[0]
        if self.later and not left and self.is_file:
            raise SourceRejected("its zip archive was written without the length of the file before it: pack it with deflate, or with gzip")
        while left:
            piece = stream.take(min(left, _PIECE))
            left -= len(piece)
            yield piece

    def _inflated(self, stream: _Stream) -> Iterator[bytes]:
        inflate, data = zlib.decompressobj(-zlib.MAX_WBITS), b""
        while not inflate.eof:
            piece = inflate.decompress(data, _PIECE)
            yield piece
            data = inflate.unconsumed_tail
            if not data and len(piece) < _PIECE and not inflate.eof and not (data := stream.some()):
                raise TruncatedBody("its zip packing breaks off")
        stream.back(inflate.unused_data)

    def _described(self, stream: _Stream, sizes: tuple[int, int]) -> None:
        """Sum and sizes as they stand behind the content: with a mark before them or without, in numbers of 32 or 64 bits."""
        first = stream.take(4)
        self.sum = int.from_bytes(first if first != _DESCRIPTOR else stream.take(4), "little")
        written = stream.take(8)
        short = struct.unpack("<II", written)
        self.sizes = short if short == sizes else struct.unpack("<QQ", written + stream.take(8))


def _member(stream: _Stream) -> _Member:
    """The member whose header comes next; its mark was taken."""
    _, flags, method, _, _, checked, packed, size, name_length, extra_length = stream.unpack("5H3I2H")
    name, extra = stream.take(name_length), stream.take(extra_length)
    if _OF_A_DOCUMENT.fullmatch(name):
        raise SourceRejected("it is an Excel workbook or another document, not CSV: export it as CSV")
    if flags & _ENCRYPTED or method == 99:
        raise SourceRejected("its zip archive is encrypted: pack it without a password")
    if method not in {_STORED, _DEFLATED}:
        raise SourceRejected(f"its zip archive is packed by a method that is not read ({method}): pack it with deflate, the usual one")
    size, packed = _wide(extra, size, packed)
    return _Member(name, method, bool(flags & _DESCRIBED_LATER), checked, (packed, size))


def _wide(extra: bytes, *numbers: int) -> tuple[int, ...]:
    """The numbers, those that 32 bits do not hold as they stand in the extra field of ZIP64."""
    wide = b""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        wide = extra[4 : 4 + length] if kind == 1 else wide
        extra = extra[4 + length :]
    places = iter(range(0, len(wide) - 7, 8))
    try:
        return tuple(struct.unpack_from("<Q", wide, next(places))[0] if each == _IN_EXTRA else each for each in numbers)
    except (StopIteration, RuntimeError):
        raise TruncatedBody(_BROKEN) from None


def _listed(stream: _Stream, mark: bytes) -> dict[int, int]:
    """Where the directory says that members begin, each with its sum. Nothing but zeros follows it."""
    found = {}
    while mark == _ENTRY:
        *_, checked, packed, size, name_length, extra_length, remark_length, _, _, _, at = stream.unpack("6H3I5H2I")
        stream.take(name_length)
        _, _, at = _wide(stream.take(extra_length), size, packed, at)
        stream.take(remark_length)
        found[at] = checked
        mark = stream.take(4)
    while mark in {_SIGNATURE, _END_64, _LOCATOR_64}:
        form = {_SIGNATURE: "H", _END_64: "Q"}.get(mark)
        stream.take(min(stream.unpack(form)[0], 2**16) if form else 16)
        mark = stream.take(4)
    if mark != _END:
        raise TruncatedBody(_BROKEN)
    *_, remark_length = stream.unpack("4H2IH")
    stream.take(remark_length)
    while rest := stream.some():
        if rest.strip(b"\0"):
            raise TruncatedBody(_BROKEN)
    return found
