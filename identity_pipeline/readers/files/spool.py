"""The spool: a file is taken whole before anything is read of it.

So it is one version, complete, unpacked and bounded, and can be read twice. Spools are nameless
temporary files (``TMPDIR``), gone with the process.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO, cast

from identity_pipeline.readers.http.body import bounded, gunzipped

_IN_MEMORY = 8 * 2**20
_GZIP = b"\x1f\x8b"


def spool(chunks: Iterable[bytes], limit: int) -> tuple[BinaryIO, str]:
    """The bytes, unpacked if they are gzip, as a temporary file at its start, and their SHA-256.

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
    """The chunks, gunzipped if they begin like gzip: names and headers of packed files are often wrong."""
    head, rest = b"", iter(chunks)
    for chunk in rest:
        head += chunk
        if len(head) >= len(_GZIP):
            break
    whole = chain([head], rest)
    return gunzipped(whole) if head.startswith(_GZIP) else whole
