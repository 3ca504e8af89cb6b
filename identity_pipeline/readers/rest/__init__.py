"""Reading HTTP APIs that answer JSON in pages.

Belongs here: what all such sources share (requests, credentials, retries, pages, batches, the steps
of a connection test). Does not belong here: what one vendor does; that is a connector's.

A connector builds a :class:`Client` with an ``Auth`` value and a function that reads the vendor's
error bodies, asks ``client.pages(request, paginator)`` for answers, takes ``answer.records(path)``
out of each, and hands the pages to :func:`batches`.
"""

from identity_pipeline.readers.rest.auth import ApiKeyAuth, Auth, BasicAuth, BearerAuth, TokenAuth
from identity_pipeline.readers.rest.client import RETRY_BUDGET, Client
from identity_pipeline.readers.rest.fault import GIVE_UP, ErrorBody, Fault
from identity_pipeline.readers.rest.message import Answer, Request, chunks, lower_bound
from identity_pipeline.readers.rest.paginator import CursorPaginator, KeysetPaginator, LinkPaginator, OffsetPaginator, Paginator
from identity_pipeline.readers.rest.probe import steps
from identity_pipeline.readers.rest.record import Pages, Record, batches, joined

__all__ = [
    "GIVE_UP",
    "RETRY_BUDGET",
    "Answer",
    "ApiKeyAuth",
    "Auth",
    "BasicAuth",
    "BearerAuth",
    "Client",
    "CursorPaginator",
    "ErrorBody",
    "Fault",
    "KeysetPaginator",
    "LinkPaginator",
    "OffsetPaginator",
    "Pages",
    "Paginator",
    "Record",
    "Request",
    "TokenAuth",
    "batches",
    "chunks",
    "joined",
    "lower_bound",
    "steps",
]
