"""The bytes of a body: all of them or an error, unpacked, in small pieces, and never more than a limit.

requests takes a gzip body that breaks off for a whole one, so it is unpacked here and its end is
demanded.
"""

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

import requests

from identity_pipeline.core.errors import ContractBroken, LimitExceeded, TruncatedBody
from identity_pipeline.core.window import ReadContext

_CHUNK = 2**18
_BOMB = 500
"""Times that a packed body may grow. A wide table of mostly empty cells reaches some 200, a bomb 1,000."""
_HARMLESS = 10 * 2**20
"""Bytes up to which any growth is fine."""
_GZIP = frozenset({"gzip", "x-gzip"})
_KNOWN = frozenset({"br", "compress", "deflate", "zstd"})


def stream(response: requests.Response, context: ReadContext) -> Iterator[bytes]:
    """The body in pieces, as it was before the transport packed it. ``context`` counts what came over the wire.

    Raises:
        TruncatedBody: its packing breaks off or is damaged.
        LimitExceeded: it unpacks as only a bomb does.
        ContractBroken: it is packed in a way that was not asked for.
        urllib3.exceptions.HTTPError: the connection failed, or promised bytes did not come.
    """
    encoding = _encoding(response)
    if encoding not in {"", "identity"} | _GZIP:
        named = encoding if encoding in _KNOWN else "something else"
        raise ContractBroken(f"it is packed as {named}, which was not asked for: have the server send it as it is")
    wire = _wire(response, context)
    return gunzipped(wire) if encoding in _GZIP else wire


def stored(response: requests.Response, context: ReadContext) -> Iterator[bytes]:
    """The body in pieces as it is sent, for what somebody stored with a word about its packing that may be wrong. Counted likewise.

    Raises:
        urllib3.exceptions.HTTPError: the connection failed, or promised bytes did not come.
    """
    return _wire(response, context)


def length_known(response: requests.Response) -> bool:
    """True if the transport itself shows where the body ends, so that a cut cannot go unseen."""
    return "Content-Length" in response.headers or bool(response.raw.chunked) or _encoding(response) in _GZIP


def bounded(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """The chunks, an error instead of the first that leads beyond ``limit``.

    Raises:
        LimitExceeded: they hold more than ``limit`` bytes.
    """
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise LimitExceeded(f"it holds more than {limit:,} bytes")
        yield chunk


def gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The content of all gzip members. Zeros may follow the last one, as tapes have them; nothing else.

    Raises:
        TruncatedBody: the packing breaks off or is damaged.
        LimitExceeded: it unpacks as only a bomb does.
    """
    inflate, packed, total = zlib.decompressobj(wbits=31), 0, 0
    try:
        for chunk in chain(chunks, [b""]):
            packed += len(chunk)
            data, more = chunk, True
            while more:
                if inflate.eof:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    inflate = zlib.decompressobj(wbits=31)
                piece = inflate.decompress(data, _CHUNK)
                total += len(piece)
                if total > max(_HARMLESS, packed * _BOMB):
                    raise LimitExceeded(f"it unpacks to more than {_BOMB} times its size, as only a bomb does")
                yield piece
                data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
                more = bool(data)
    except zlib.error:
        raise TruncatedBody("its gzip packing is damaged, or something else follows it") from None
    if not inflate.eof:
        raise TruncatedBody("its gzip packing breaks off")


def _encoding(response: requests.Response) -> str:
    return response.headers.get("Content-Encoding", "").strip().lower()


def _wire(response: requests.Response, context: ReadContext) -> Iterator[bytes]:
    for chunk in response.raw.stream(_CHUNK, decode_content=False):
        context.count(bytes_read=len(chunk))
        yield chunk
