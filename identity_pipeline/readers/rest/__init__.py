"""Reading HTTP APIs that answer JSON in pages, or CSV.

Belongs here: what all such sources share (requests, credentials, pages, batches, a vendor's words
for its errors, the connection test). Does not belong here: what is true of HTTP without JSON
(``readers.http``), and what one vendor does; that is a connector's.

A connector builds a :class:`Client` with an :class:`Auth` value and an :class:`ErrorBody`, asks
``client.pages(request, paginator, total)`` for responses, takes ``response.records(path)`` out of each,
and hands the pages to :func:`batches`.
"""

from identity_pipeline.readers.rest.auth import ApiKeyAuth, Auth, BasicAuth, BearerAuth
from identity_pipeline.readers.rest.client import RETRY_BUDGET, Client
from identity_pipeline.readers.rest.delta import Deltas
from identity_pipeline.readers.rest.error import GIVE_UP, ErrorBody, VendorError
from identity_pipeline.readers.rest.grant import ClientCredentials
from identity_pipeline.readers.rest.limit import CostBudget, Limit, Quota, RateHeaders
from identity_pipeline.readers.rest.message import ITEM, Request, Response, fits, fitting
from identity_pipeline.readers.rest.paginator import (
    CursorPaginator,
    HeaderPaginator,
    KeysetPaginator,
    LinkPaginator,
    OffsetPaginator,
    Paginator,
    TimePaginator,
    Total,
)
from identity_pipeline.readers.rest.probe import check
from identity_pipeline.readers.rest.record import Pages, Received, Record, batches, filtered, first, folded, objects
from identity_pipeline.readers.rest.withheld import Withheld

__all__ = [
    "GIVE_UP",
    "ITEM",
    "RETRY_BUDGET",
    "ApiKeyAuth",
    "Auth",
    "BasicAuth",
    "BearerAuth",
    "Client",
    "ClientCredentials",
    "CostBudget",
    "CursorPaginator",
    "Deltas",
    "ErrorBody",
    "HeaderPaginator",
    "KeysetPaginator",
    "Limit",
    "LinkPaginator",
    "OffsetPaginator",
    "Pages",
    "Paginator",
    "Quota",
    "RateHeaders",
    "Received",
    "Record",
    "Request",
    "Response",
    "TimePaginator",
    "Total",
    "VendorError",
    "Withheld",
    "batches",
    "check",
    "filtered",
    "first",
    "fits",
    "fitting",
    "folded",
    "objects",
]
