"""The spool: a file is taken whole before anything is read of it.

So it is one version, complete, unpacked and bounded, and can be read twice. Spools are nameless
temporary files (``TMPDIR``), gone with the process.
"""

import hashlib
import tempfile
from collections.abc import Iterable
from typing import BinaryIO, cast

from identity_pipeline.readers.files.packing import unpacked
from identity_pipeline.readers.http.body import bounded

_IN_MEMORY = 8 * 2**20


def spool(chunks: Iterable[bytes], limit: int) -> tuple[BinaryIO, str]:
    """The bytes, unpacked if they are packed, as a temporary file at its start, and their SHA-256.

    Raises:
        LimitExceeded: they are more than ``limit``, packed or unpacked.
        PipelineError: as :func:`~identity_pipeline.readers.files.packing.unpacked`.
    """
    file = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115 - the caller closes it
    digest = hashlib.sha256()
    try:
        for chunk in bounded(unpacked(bounded(chunks, limit)), limit):
            digest.update(chunk)
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file, digest.hexdigest()
