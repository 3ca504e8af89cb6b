"""Airtable: the records of one table with all their fields, whatever they are called.

Left out: views, comments, deleted records (a full refresh finds them), and the addresses of
attachments, which differ from answer to answer. Which fields are e-mail addresses, phone numbers
and times of change is taken from their types, then from their names; `mapping:` may say otherwise.

The cursor's traps:

- A table has no time of change of its own. A field of the type *Last modified time* is one, and
  sees the fields that it is set to watch. `LAST_MODIFIED_TIME()` needs none: it is asked of the
  formula and stands in no record. Neither sees a formula, a lookup or a rollup change.
- A formula's IS_AFTER leaves out what equals it: the bound is sent one second lower.
- An empty cell is no cell at all; a record of empty cells is a record.
- The list that pages are taken of expires after minutes: then the read begins again.

https://airtable.com/developers/web/api/list-records
"""

from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote

from identity_pipeline.connectors.base import CursorColumn, RestConnector, Secret, setting
from identity_pipeline.core.window import Window
from identity_pipeline.readers import names, rest

BY_TYPE = {
    kind: tuple(f"by_type.{kind}.{n}" for n in range(1, most + 1))
    for kind, most in {"email": 20, "phoneNumber": 20, "lastModifiedTime": 1}.items()
}
INSIDE = ("", ".id", ".email", ".name", ".text", ".value", ".state", ".label", ".error")
CHANGED = "LAST_MODIFIED_TIME()"
FORMULAS = {
    CHANGED: "OR(IS_AFTER(LAST_MODIFIED_TIME(),DATETIME_PARSE('{bound}')),"
    "IS_AFTER(CREATED_TIME(),DATETIME_PARSE('{bound}')))",
    "createdTime": "IS_AFTER(CREATED_TIME(),DATETIME_PARSE('{bound}'))",
    "timestamp": "OR({field}=BLANK(),IS_AFTER({field},DATETIME_PARSE('{bound}')))",
    "int": "OR({field}=BLANK(),{field}>={bound})",
}
UNTYPED = (
    "give the token the scope schema.bases:read again, or say by `mapping:` which fields hold "
    "e-mail addresses, phone numbers and times of change, then run it again"
)
FIELD = rest.VendorError(advice="cursor_column has to be a field of the table, spelled as there")


class AirtableRecords(RestConnector):
    """The records of one Airtable table."""

    vendor = "airtable"

    access_token: Secret = setting("Personal access token that may read records and the schema")
    base_id: str = setting(
        "The base: app…, as in its address",
        pattern=r"^app[A-Za-z0-9]+$",
        examples=["app0123456789abcd"],
    )
    table: str = setting(
        "The table: tbl…, as in its address, which outlasts a new name; or its name"
    )
    base_url: str = setting("Address of the API", default="https://api.airtable.com")

    interval = 0.2
    errors = rest.ErrorBody(
        code=("error.type", "errors.0.error", "error"),
        known={
            "PUBLIC_API_BILLING_LIMIT_EXCEEDED": rest.VendorError(
                advice="the workspace's calls of this month are used up: wait for the next month, "
                "or for a larger plan",
                wait=rest.GIVE_UP,
            ),
            "RATE_LIMIT_REACHED": rest.VendorError(wait=30),
            "INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND": rest.VendorError(
                advice="give the token the scope data.records:read and put the base into its "
                "access list; or correct base_id and table"
            ),
            "INVALID_FILTER_BY_FORMULA": FIELD,
            "UNKNOWN_FIELD_NAME": FIELD,
        },
    )
    cursor_columns: ClassVar = {
        CHANGED: CursorColumn("timestamp", overlap=120, in_records=False),
        "createdTime": CursorColumn("timestamp", overlap=120),
        "*": CursorColumn(type=None, overlap=120),
    }
    field_map = replace(
        names.HEADERS,
        external_id=("id",),
        email=(*BY_TYPE["email"], *names.HEADERS.email),
        phone=(*BY_TYPE["phoneNumber"], *names.HEADERS.phone),
        source_created_at=("createdTime",),
        source_updated_at=(*BY_TYPE["lastModifiedTime"], *names.HEADERS.source_updated_at),
    )

    def auth(self) -> rest.Auth:
        """A bearer token."""
        return rest.BearerAuth(self.access_token)

    def pages(self, client: rest.Client, window: Window) -> rest.Pages:
        """Yield the records that changed, or all."""
        schema = client.optional(
            rest.Request(f"/v0/meta/bases/{self.base_id}/tables"),
            "e-mail addresses and phone numbers are found by names only, for want of "
            "schema.bases:read",
        )
        tables = schema.keyed("tables", "name") | schema.keyed("tables", "id") if schema else {}
        types = {f["name"]: f["type"] for f in tables.get(self.table, {}).get("fields") or ()}
        typed = {
            place: name
            for kind, places in BY_TYPE.items()
            for place, name in zip(places, [n for n, t in types.items() if t == kind], strict=False)
        }
        if types:
            window.context.fields = (
                *("id", "createdTime", *typed),
                *(f"{name}{part}" for name in types for part in INSIDE),
            )
        else:
            window.context.withheld = {
                each: UNTYPED for places in BY_TYPE.values() for each in places
            }
        by = window.cursor_column if window.incremental else None
        query = {
            "pageSize": 100,
            "filterByFormula": _formula(window) if by else None,
            "sort[0][field]": by if by in types else None,
            "sort[0][direction]": "asc" if by in types else None,
        }
        for page in client.pages(
            rest.Request(
                f"/v0/{self.base_id}/{quote(self.table, safe='')}", query, size="query.pageSize"
            ),
            rest.CursorPaginator("offset", "query.offset"),
        ):
            yield [
                {name: _lasting(value) for name, value in each.items()}
                | {place: each.get(name) for place, name in typed.items()}
                for each in page.records("records", lift="fields")
            ]


def _formula(window: Window) -> str | None:
    """What asks for the records from the window's lower bound on; None where no formula can."""
    column, kind = str(window.cursor_column), str(window.cursor_type)
    field = "{" + column.replace("\\", "\\\\").replace("}", "\\}") + "}"
    form = FORMULAS.get(column) or FORMULAS.get(kind, "")
    bound = window.lower_bound("iso_s", exclusive=kind == "timestamp")
    return form.format(field=field, bound=bound) or None


def _lasting(value: Any) -> Any:
    """A value without the addresses of attachments."""
    listed = isinstance(value, list) and all(isinstance(each, dict) for each in value)
    return (
        [{k: v for k, v in each.items() if k not in {"url", "thumbnails"}} for each in value]
        if listed
        else value
    )
