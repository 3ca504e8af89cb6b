"""How a file is packed, by its first bytes, and what it is unpacked: names and headers of packed files are often wrong."""

import bz2
import lzma
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Protocol

from backports import zstd

from identity_pipeline.core.errors import SourceRejected, TruncatedBody
from identity_pipeline.readers.files.archive import BEGINNINGS, unzipped
from identity_pipeline.readers.http.body import gunzipped

HEAD = 10
"""Bytes of the beginning that decide."""
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
"""A stream that begins with a block, or holds none."""
_PIECE = 2**18
_MEMORY = 256 * 2**20
"""Bytes that unpacking xz may take; its strongest preset needs 65 MiB."""
_WINDOW = 27
"""Zstandard may look back so far, as a power of 2: what every program unpacks without being asked to."""


class _Decompressor(Protocol):
    """What the decompressors of bz2, lzma and zstd share."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, unpacked if they begin like gzip, bzip2, xz, Zstandard or a ZIP archive.

    Raises:
        TruncatedBody: the packing breaks off or is damaged.
        LimitExceeded: it unpacks as only a bomb does.
        SourceRejected: it is packed in a way that is not read, or takes too much memory.
    """
    head, rest = b"", iter(chunks)
    for chunk in rest:
        head += chunk
        if len(head) >= HEAD:
            break
    whole = chain([head], rest)
    if head.startswith(b"\x1f\x8b"):
        return gunzipped(whole)
    if _BZIP2.match(head):
        return _streams(whole, bz2.BZ2Decompressor, "bzip2")
    if head.startswith(b"\xfd7zXZ\0"):
        return _streams(whole, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY), "xz")
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5):  # a frame, or one to be skipped
        options = {int(zstd.DecompressionParameter.window_log_max): _WINDOW}
        return _streams(whole, lambda: zstd.ZstdDecompressor(options=options), "Zstandard")
    if head.startswith(BEGINNINGS):
        return unzipped(whole)
    return whole


def _streams(chunks: Iterable[bytes], decompressor: Callable[[], _Decompressor], packing: str) -> Iterator[bytes]:
    """The content of all streams of a packed file, which may stand one after the other."""
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
    except (OSError, lzma.LZMAError, zstd.ZstdError) as error:
        if "memory" in str(error).lower():
            raise SourceRejected(f"its {packing} packing takes more memory to unpack than is allowed: pack it with less") from None
        if "Dictionary mismatch" in str(error):
            raise SourceRejected(f"its {packing} packing needs a dictionary, or is damaged: pack it without one") from None
        raise TruncatedBody(f"its {packing} packing is damaged") from None
    if not inflate.eof:
        raise TruncatedBody(f"its {packing} packing breaks off")
