"""The bytes of an answer: all of them or an error, unpacked, and never more than a limit.

requests takes a gzip body that breaks off for a whole one, so it is unpacked here and its end is
demanded.
"""

import zlib
from collections.abc import Callable

import requests

from identity_pipeline.core.errors import ContractBroken, LimitExceeded, TruncatedBody


def read_body(response: requests.Response, limit: int, count: Callable[[int], None]) -> bytes:
    """The body, unpacked. ``count`` is told the bytes that came over the wire.

    Raises:
        TruncatedBody: it broke off, or its packing is damaged.
        LimitExceeded: it holds more than ``limit`` bytes.
        ContractBroken: it is packed in a way that was not asked for.
        urllib3.exceptions.HTTPError: the connection failed, or promised bytes did not come.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise ContractBroken(f"it is packed as {encoding[:20]!r}, which was not asked for")
    inflate = zlib.decompressobj(wbits=31) if "gzip" in encoding else None
    parts: list[bytes] = []
    left = limit
    for chunk in response.raw.stream(65_536, decode_content=False):
        count(len(chunk))
        try:
            part = inflate.decompress(chunk, left + 1) if inflate else chunk
        except zlib.error:
            raise TruncatedBody("its compressed body is damaged") from None
        left -= len(part)
        if left < 0:
            raise LimitExceeded(f"it is larger than {limit:,} bytes: ask for smaller pages")
        parts.append(part)
    if inflate and not inflate.eof:
        raise TruncatedBody("its compressed body breaks off")
    if inflate and inflate.unused_data:
        raise TruncatedBody("its compressed body is followed by something else")
    return b"".join(parts)
