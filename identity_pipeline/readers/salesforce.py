"""Salesforce's two ways to query: page by page, or as a job of the org (Bulk API 2.0) whose results are CSV.

A job counts as a handful of requests, however many records it reads, and takes a query of 100,000
characters, so that an org with thousands of fields is read whole. It takes minutes to begin.

https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/queries.htm
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, repeat

from identity_pipeline.core.errors import PipelineError, SourceRejected, SourceUnavailable
from identity_pipeline.core.window import Window
from identity_pipeline.readers.rest import Client, HeaderPaginator, LinkPaginator, Pages, Record, Request, Response, Total, fitting

_CELLS, _ROWS = 1_000_000, range(200, 10_000)
"""Cells, and so rows, of one answer of a job."""
LONGEST = 3 * 3600.0
"""Seconds that a job may take: the org runs it when it has room."""
_UNREADABLE = frozenset({"address", "location", "base64", "complexvalue"})
_ADDRESS = 12_000
"""Bytes of field names that an address takes: it ends at 16,384."""
_WAITS = (2.0, 3.0, 5.0, 10.0, 20.0)
"""Seconds between two looks at a job; then it is 30."""
_PAGE = LinkPaginator("nextRecordsUrl")
_RESULTS = HeaderPaginator("Sforce-Locator", "query.locator", last="null")
_TOTAL = Total("totalSize", "records", indexed=True)
_SIZE = "options.Sforce-Query-Options.batchSize"
_ID = re.compile(r"[A-Za-z0-9]{15,18}")
_SAID = re.compile(r"[A-Z]+(_[A-Z]+)+")


def fields(described: Response, first: Iterable[str]) -> dict[str, str]:
    """The fields that a query may name, each with its type: those of ``first`` before the others, and the account's name."""
    found = described.keyed("fields", "name")
    types = {name: str(found[name].get("type")) for name in dict.fromkeys((*first, *found)) if name in found}
    readable = {name: type_ for name, type_ in types.items() if type_ not in _UNREADABLE}
    return ({"Id": "id", "Account.Name": "string"} if "AccountId" in readable else {}) | readable


@dataclass(frozen=True)
class Query:
    """What to ask an object for, those in its recycle bin too: as a job where that is more than ``bulk_above`` records or many fields.

    ``base`` is the path of the API's version, ``types`` the fields with their types, ``condition`` a ``WHERE`` or
    nothing, ``order`` the field by which pages are told apart.
    """

    base: str
    kind: str
    types: Mapping[str, str]
    condition: str
    order: str
    bulk_above: int

    def pages(self, client: Client, window: Window) -> Pages:
        """Yield the records, the same ones by either way; those of a job in no order.

        Raises:
            SourceRejected: the org stopped the job.
            SourceUnavailable: it was not done in three hours.
            ContractBroken: its results are not whole.
            PipelineError: as :meth:`Client.send`.
        """
        fit = fitting(list(self.types), _ADDRESS)
        asked = Request(f"{self.base}/queryAll", {"q": f"{self._soql(fit)} ORDER BY {self.order},Id"}, size=_SIZE).put(_SIZE, 2000)
        pages = client.pages(asked, _PAGE, _TOTAL)
        first = next(pages)
        if window.limit is None and (len(fit) < len(self.types) or first.number("totalSize") > self.bulk_above):
            jobs, told = f"{self.base}/jobs/query", {"operation": "queryAll", "query": self._soql(self.types), "contentType": "CSV"}
            job = client.optional(Request(jobs, body=told), "the org does not let us use its Bulk API")
            if job is not None:
                yield from _results(client, jobs, job, self.types)
                return
        if len(fit) < len(self.types):
            client.context.warn(f"{self.kind} has {len(self.types)} fields, of which a query takes {len(fit)}: the last are left out")
        for page in chain([first], pages):
            yield [_bare(record) for record in page.records("records")]

    def _soql(self, names: Iterable[str]) -> str:
        return f"SELECT {','.join(names)} FROM {self.kind}{self.condition}"


def _results(client: Client, jobs: str, begun: Response, types: Mapping[str, str]) -> Pages:
    job, done, read = str(begun.at("id")), False, 0
    if not _ID.fullmatch(job):
        raise begun.broken("the id of a job")
    client.context.log(f"reading by job {job} of the Bulk API")
    rows = max(_ROWS.start, min(_ROWS.stop, _CELLS // len(types)))
    results = Request(f"{jobs}/{job}/results", {"maxRecords": rows}, size="query.maxRecords", answers="csv")
    try:
        found = _awaited(client, Request(f"{jobs}/{job}"))
        done = True
        for page in client.pages(results, _RESULTS):
            records = page.records("records")
            if str(len(records)) != page.headers.get("Sforce-NumberOfRecords"):
                raise page.broken("as many rows as it says it holds")
            read += len(records)
            yield [_as_queried(record, types) for record in records]
        if read < found:
            raise begun.broken(f"the {found:,} records that job {job} found: its results hold {read:,}")
    finally:
        over = Request(f"{jobs}/{job}", verb="DELETE") if done else Request(f"{jobs}/{job}", body={"state": "Aborted"}, verb="PATCH")
        with suppress(PipelineError):  # it is gone by itself after seven days
            replace(client, attempts=1, retry_budget=20.0).send(over)


def _awaited(client: Client, look: Request) -> int:
    """How many records the job found, once it is done."""
    waited = 0.0
    for wait in chain(_WAITS, repeat(30.0)):
        answer = client.send(look)
        state = str(answer.at("state"))
        if state == "JobComplete":
            return answer.number("numberRecordsProcessed")
        if state in {"Failed", "Aborted"}:
            said = found[0] if (found := _SAID.search(str(answer.at("errorMessage")))) else "without a code"
            raise SourceRejected(f"{answer.tried}: the job is {state}, {said}: look at it in Salesforce (Setup, Bulk Data Load Jobs)")
        if (waited := waited + wait) > LONGEST:
            break
        client.context.sleep(wait)
    raise SourceUnavailable(f"{look.path}: Salesforce has not done the job within {LONGEST / 3600:.0f} hours: run it again later")


def _as_queried(row: Record, types: Mapping[str, str]) -> Record:
    """A row of CSV as a record of a query: fields of another object inside it, the offset of UTC in digits."""
    made: Record = {}
    for name, value in row.items():
        outer, inside, inner = name.partition(".")
        if inside:
            made[outer] = None if value is None else {inner: value}
        else:
            made[name] = f"{value[:-1]}+0000" if value and types.get(name) == "datetime" else value
    return made


def _bare(record: Record) -> Record:
    """A record without what Salesforce says of its address."""
    return {name: _bare(value) if isinstance(value, dict) else value for name, value in record.items() if name != "attributes"}
