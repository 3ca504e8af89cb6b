"""A Salesforce-shaped REST API on this machine: what an object has, and queries over it with its recycle bin.

Written from Salesforce's published contract (https://developer.salesforce.com/docs/platform/api-rest/guide). A query that is not SOQL as
it is asked here, or names a field that there is none of, is refused.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

Record = dict[str, Any]
COMMON = {
    "Id": "id", "IsDeleted": "boolean", "MasterRecordId": "reference", "FirstName": "string", "LastName": "string", "Name": "string",
    "Email": "email", "Phone": "phone", "MobilePhone": "phone", "Title": "string", "Description": "textarea", "CreatedDate": "datetime",
    "LastModifiedDate": "datetime", "SystemModstamp": "datetime", "PhotoUrl": "url",
}  # fmt: skip
FIELDS = {
    "Contact": COMMON
    | {"AccountId": "reference", "MailingAddress": "address", "MailingCity": "string", "MailingCountry": "string", "Logo__c": "base64"},
    "Lead": COMMON | {"Company": "string", "Address": "address", "City": "string", "ConvertedContactId": "reference"},
}
_SOQL = re.compile(
    r"SELECT (?P<fields>[\w.,]+) FROM (?P<kind>\w+)(?: WHERE (?P<column>\w+) >= (?P<bound>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z))?"
    r"(?: ORDER BY (?P<order>\w+),Id)?"
)


def stamp(at: datetime) -> str:
    """An instant as Salesforce writes it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}+0000"


def _refusal(status: int, code: str, message: str) -> Refusal:
    return Refusal(status, [{"message": message, "errorCode": code}])


@dataclass
class Job:
    """A query that runs by itself; ``over`` is what it was told in the end."""

    query: str
    looked: int = 0
    over: str = ""


@dataclass
class SalesforceAPI(VendorAPI):
    """An org: its records by id, those in the recycle bin too. The user may read ``objects``, but not the fields ``hidden`` in them.

    ``used`` of ``allowed`` requests a day are used up. ``lost`` locators are not known any more. ``jobs`` of its Bulk
    API, where it has one (``bulk``), are done after ``looks`` looks at them, if no ``failure`` ends them; ``cut`` rows are lost of each.
    """

    token: str = ""
    objects: tuple[str, ...] = ("Contact", "Lead")
    hidden: set[str] = field(default_factory=set)
    more: dict[str, str] = field(default_factory=dict)
    records: dict[str, dict[str, Record]] = field(default_factory=lambda: {"Contact": {}, "Lead": {}})
    accounts: dict[str, str] = field(default_factory=dict)
    used: int = 18
    allowed: int = 100_000
    lost: bool = False
    bulk: bool = True
    looks: int = 0
    failure: str = ""
    cut: int = 0
    jobs: dict[str, "Job"] = field(default_factory=dict)
    _results: dict[str, tuple[list[Record], list[str], str]] = field(default_factory=dict)

    def put(self, record_id: str, at: datetime, kind: str = "Contact", **fields: Any) -> None:
        """Create or change a record at this time."""
        before = self.records[kind].get(record_id) or {
            "Id": record_id,
            "IsDeleted": False,
            "MasterRecordId": None,
            "CreatedDate": stamp(at),
        }
        self.records[kind][record_id] = {**before, "SystemModstamp": stamp(at), "LastModifiedDate": stamp(at), **fields}

    def merge(self, loser: str, winner: str, at: datetime, kind: str = "Contact") -> None:
        """Merge one record into another."""
        self.put(loser, at, kind, IsDeleted=True, MasterRecordId=winner)

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By bearer token."""
        if dead or asked.headers.get("Authorization") != f"Bearer {self.token}":
            raise _refusal(401, "INVALID_SESSION_ID", "Session expired or invalid")

    def hasty(self) -> Refusal:
        """Down for maintenance, since a limit of requests in a moment there is none."""
        return _refusal(503, "SERVER_UNAVAILABLE", "Service is temporarily unavailable")

    def answer(self, asked: Asked) -> Any:
        """What an object has, or a page of a query."""
        self.used += 1
        self.headers["Sforce-Limit-Info"] = f"api-usage={self.used}/{self.allowed}"
        if self.used > self.allowed:
            raise _refusal(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        match asked.method, asked.steps:
            case "GET", ["services", "data", "v66.0", "sobjects", kind, "describe"]:
                return {"name": kind, "fields": [{"name": name, "type": what} for name, what in self._fields(kind).items()]}
            case "GET", ["services", "data", "v66.0", "queryAll"]:
                return self._query(asked)
            case "GET", ["services", "data", "v66.0", "query", locator]:
                return self._page(asked, locator)
            case _, ["services", "data", "v66.0", "jobs", "query", *rest]:
                return self._job(asked, rest)
            case _:
                raise _refusal(404, "NOT_FOUND", "The requested resource does not exist")

    def _fields(self, kind: str) -> dict[str, str]:
        if kind not in self.objects:
            raise _refusal(400, "INVALID_TYPE", f"sObject type '{kind}' is not supported.")
        return {name: what for name, what in (FIELDS[kind] | self.more).items() if name not in self.hidden}

    def _query(self, asked: Asked) -> dict[str, Any]:
        if len(asked.address) > 16_384:
            raise Refusal(414, b"<html>URI Too Long</html>")
        locator = f"01g{len(self._results):012d}"
        self._results[locator] = self._found(asked.query.get("q", ""))
        return self._page(asked, f"{locator}-0")

    def _found(self, query: str) -> tuple[list[Record], list[str], str]:
        found = _SOQL.fullmatch(query)
        if not found:
            raise _refusal(400, "MALFORMED_QUERY", "unexpected token")
        known, names = self._fields(found["kind"]), found["fields"].split(",")
        for name in (*names, found["order"] or "Id", found["column"] or "Id"):
            if name not in known and not (name == "Account.Name" and "AccountId" in known):
                raise _refusal(400, "INVALID_FIELD", f"No such column '{name}' on entity '{found['kind']}'.")
        records = [each for each in self.records[found["kind"]].values() if not found["bound"] or self._since(each, found)]
        ordered = sorted(records, key=lambda each: (str(each[found["order"]]), each["Id"])) if found["order"] else records[::-1]
        return ordered, names, found["kind"]

    def _job(self, asked: Asked, rest: list[str]) -> Any:
        if not self.bulk:
            raise _refusal(400, "FEATURENOTENABLED", "Async API not enabled")
        if asked.method == "POST" and not rest:
            assert asked.body["operation"] == "queryAll"
            self._found(asked.body["query"])
            name = f"750{len(self.jobs):015d}"
            self.jobs[name] = Job(asked.body["query"])
            return {"id": name, "state": "UploadComplete", "object": "Contact", "apiVersion": 66.0}
        job = self.jobs.get(rest[0])
        if job is None:
            raise _refusal(404, "NOT_FOUND", "The requested resource does not exist")
        found, names, kind = self._found(job.query)
        match asked.method, rest[1:]:
            case "PATCH", []:
                job.over = asked.body["state"]
                return {"id": rest[0], "state": job.over}
            case "DELETE", []:
                job.over = "deleted"
                raise Refusal(204, b"")
            case "GET", []:
                job.looked += 1
                state = "InProgress" if job.looked <= self.looks else "Failed" if self.failure else "JobComplete"
                told = {"numberRecordsProcessed": len(found) if state == "JobComplete" else 0, "errorMessage": self.failure or None}
                return {"id": rest[0], "state": state, **told}
            case "GET", ["results"] if job.looked > self.looks and asked.headers["Accept"] == "text/csv":
                start = int(asked.query.get("locator") or 0)
                end = start + self.least(int(asked.query["maxRecords"]))
                page = found[start : min(end, len(found) - self.cut)]
                headers = {"Sforce-Locator": str(end) if end < len(found) else "null", "Sforce-NumberOfRecords": str(len(page))}
                raise Refusal(200, self._csv(page, names, kind), {"Content-Type": "text/csv", **headers})
        raise _refusal(405, "METHOD_NOT_ALLOWED", "HTTP Method not allowed")

    def _csv(self, page: list[Record], names: list[str], kind: str) -> bytes:
        """Every cell in quotes, null as nothing, instants with Z."""

        def cell(value: Any) -> str:
            text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            return '"' + re.sub(r"(T\d\d:\d\d:\d\d\.\d{3})\+0000", r"\1Z", text).replace('"', '""') + '"'

        shown = [self._shown(each, names, kind) for each in page]
        rows = [[(each.get("Account") or {}).get("Name") if name == "Account.Name" else each[name] for name in names] for each in shown]
        return "".join(",".join(map(cell, row)) + "\n" for row in (names, *rows)).encode()

    @staticmethod
    def _since(record: Record, found: re.Match[str]) -> bool:
        return datetime.fromisoformat(record[found["column"]]) >= datetime.fromisoformat(found["bound"])

    def _page(self, asked: Asked, place: str) -> dict[str, Any]:
        locator, _, start = place.rpartition("-")
        if locator not in self._results or (self.lost and start != "0"):
            raise _refusal(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        records, names, kind = self._results[locator]
        wanted = re.search(r"batchSize=(\d+)", asked.headers.get("Sforce-Query-Options", ""))
        end = int(start) + self.least(min(max(int(wanted[1]) if wanted else 2000, 200), 2000))
        page = [self._shown(each, names, kind) for each in records[int(start) : end]]
        more = {} if end >= len(records) else {"nextRecordsUrl": f"/services/data/v66.0/query/{locator}-{end}"}
        return {"totalSize": len(records), "done": not more, **more, "records": page}

    def _shown(self, record: Record, names: list[str], kind: str) -> Record:
        url = f"/services/data/v66.0/sobjects/{kind}/{record['Id']}"
        shown = {"attributes": {"type": kind, "url": url}, **{name: record.get(name) for name in names if "." not in name}}
        if "Account.Name" in names:
            account = self.accounts.get(str(record.get("AccountId")))
            shown["Account"] = {"attributes": {"type": "Account"}, "Name": account} if account else None
        return shown
