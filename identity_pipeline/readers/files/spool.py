"""The spool: a file is taken whole before anything is read of it.

So it is one version, complete, unpacked and bounded, and can be read twice. Spools are nameless
temporary files (``TMPDIR``), gone with the process.
"""

import bz2
import hashlib
import lzma
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import BinaryIO, cast

from identity_pipeline.core.errors import LimitExceeded, TruncatedBody
from identity_pipeline.readers.http.body import bounded, gunzipped

_IN_MEMORY = 8 * 2**20
_PIECE = 2**18
_XZ_MEMORY = 256 * 2**20
"""Bytes that unpacking xz may take; its strongest preset needs 65 MiB."""
_GZIP = b"\x1f\x8b"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\0"


def spool(chunks: Iterable[bytes], limit: int) -> tuple[BinaryIO, str]:
    """The bytes, unpacked if they are gzip, bzip2 or xz, as a temporary file at its start, and their SHA-256.

    Raises:
        LimitExceeded: they are more than ``limit``, packed or unpacked.
        TruncatedBody: the packing breaks off or is damaged.
    """
    file = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115 - the caller closes it
    digest = hashlib.sha256()
    try:
        for chunk in bounded(_unpacked(bounded(chunks, limit)), limit):
            digest.update(chunk)
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file, digest.hexdigest()


def _unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, unpacked if they begin like something packed: names and headers of packed files are often wrong."""
    head, rest = b"", iter(chunks)
    for chunk in rest:
        head += chunk
        if len(head) >= len(_XZ):
            break
    whole = chain([head], rest)
    if head.startswith(_GZIP):
        return gunzipped(whole)
    if head.startswith(_BZIP2) and head[3:5] in {b"%d1" % level for level in range(1, 10)}:
        return _streams(whole, bz2.BZ2Decompressor, "bzip2")
    if head.startswith(_XZ):
        return _streams(whole, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY), "xz")
    return whole


def _streams(
    chunks: Iterable[bytes], decompressor: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor], packing: str
) -> Iterator[bytes]:
    """The content of all streams of a packed file, which may stand one after the other.

    Raises:
        TruncatedBody: the packing breaks off or is damaged.
        LimitExceeded: it takes too much memory.
    """
    inflate = decompressor()
    try:
        for chunk in chunks:
            data = chunk
            while data or not (inflate.eof or inflate.needs_input):
                if inflate.eof:
                    data = data.lstrip(b"\0")  # padding
                    if not data:
                        break
                    inflate = decompressor()
                yield inflate.decompress(data, _PIECE)
                data = inflate.unused_data if inflate.eof else b""
    except (OSError, lzma.LZMAError) as error:
        if "memory" in str(error).lower():
            raise LimitExceeded(f"it takes more than {_XZ_MEMORY:,} bytes of memory to unpack its {packing}") from None
        raise TruncatedBody(f"its {packing} packing is damaged") from None
    if not inflate.eof:
        raise TruncatedBody(f"its {packing} packing breaks off")
