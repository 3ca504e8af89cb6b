"""Reading files of records out of stores.

Belongs here: the :class:`Store` protocol and one module for each store, what was read of a file
before, the spool that a file is read from, CSV and its encodings, the connection test. Does not
belong here: what is true of HTTP without files (``readers.http``), and the settings of a source;
those are a connector's.

A connector makes a :class:`Store` and a :class:`Reading` and hands both to :func:`read_files`. A new
store is one module beside ``https``, with the three methods of the protocol.
"""

from identity_pipeline.readers.files.csv import Dialect
from identity_pipeline.readers.files.glob import Glob
from identity_pipeline.readers.files.https import HttpsStore, is_signed
from identity_pipeline.readers.files.read import MAX_BYTES, RETRY_BUDGET, Contents, Reading, check, read_files, unread
from identity_pipeline.readers.files.store import Content, Entry, Page, Replaced, Store
from identity_pipeline.readers.names import HEADERS

__all__ = [
    "HEADERS", "MAX_BYTES", "RETRY_BUDGET", "Content", "Contents", "Dialect", "Entry", "Glob", "HttpsStore", "Page", "Reading", "Replaced",
    "Store", "check", "is_signed", "read_files", "unread",
]  # fmt: skip
