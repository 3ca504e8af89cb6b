"""The Sources API, ``/api/v1``: what the pages do, as JSON. Errors are problem details (RFC 9457)."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, PipelineError
from identity_pipeline.credentials import vault
from identity_pipeline.declarations.opened import opened
from identity_pipeline.declarations.source import Source
from identity_pipeline.loading import preview as previewing
from identity_pipeline.operations import drafts, overview
from identity_pipeline.operations.drafts import Draft
from identity_pipeline.operations.replay import replayed
from identity_pipeline.store import listing, quarantine, records
from identity_pipeline.web import forms
from identity_pipeline.web.site import Site, status_of

PREFIX = "/api/v1"
Name = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,62}$", description="Name of a source")]
Limit = Annotated[int, Query(ge=1, le=1_000, description="How many at most")]
Before = Annotated[
    int | None, Query(ge=1, le=2**63 - 1, description="Id of the last one of the page before; the header Link has the whole address")
]
_PROBLEM = {
    "description": "What is wrong, and who does what next",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
PROBLEMS: dict[int | str, dict[str, Any]] = dict.fromkeys((400, 401, 403, 404, 409, 413, 415, 421, 422, 503), _PROBLEM)


class Problem(BaseModel):
    """Problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str | None = None


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Ingest(_Body):
    """What one load may choose."""

    full_refresh: bool = Field(default=False, description="Read everything, and mark as deleted what the source no longer has")
    cursor_after: str | None = Field(default=None, max_length=200, description="Read from this cursor value on, instead of from the mark")
    limit: int | None = Field(default=None, ge=1, le=2**31 - 1, description="Stop after so many records; the mark stays where it is")
    objects: list[str] = Field(default=[], max_length=1_000, description="Only these files (storage sources)")
    force: bool = Field(default=False, description="Ask a source although it wants to be left alone for a while")


class Ids(_Body):
    """Records in quarantine, by their ids."""

    ids: list[Annotated[int, Field(ge=1, le=2**63 - 1)]] = Field(min_length=1, max_length=1_000)


class Kept(_Body):
    """A secret to be stored."""

    secret: str = Field(min_length=1, max_length=65_536)
    kind: str = Field(default=vault.API_KEY, pattern=r"^[a-z][a-z0-9_ -]{0,39}$")


class NotFound(ConfigurationError):
    """What was asked for is not there."""

    code = "not_found"


def site(request: Request) -> Site:
    """The server that is asked."""
    return request.app.state.site


The = Annotated[Site, Depends(site)]
router = APIRouter(prefix=PREFIX, responses=PROBLEMS)


@router.get("/source-types")
def source_types() -> list[dict[str, Any]]:
    """The source types with their settings and cursors."""
    return [_public(overview.source_type(name)) for name in overview.source_types()]


@router.get("/source-types/{source_type}")
def source_type(source_type: str) -> dict[str, Any]:
    """One source type."""
    if source_type not in overview.source_types():
        raise NotFound(f"no source type is called {source_type[:60]!r}")
    return _public(overview.source_type(source_type))


def _public(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "page"}


@router.get("/sources")
def sources(the: The) -> list[dict[str, Any]]:
    """Declared sources, each with its last load and its mark; broken declarations with file, line and fix."""
    declared, latest = the.declarations(), listing.latest(the.url())
    rows = [overview.listed(source, latest.get(source.name, {})) for source in declared.sources.values()]
    return sorted([*rows, *map(overview.broken, declared.problems)], key=lambda row: row["source_name"] or "")


@router.get("/sources/{name}")
def source(name: Name, the: The) -> dict[str, Any]:
    """One source: how it is declared, its last load, its mark."""
    found = _declared(the, name)
    latest = listing.latest(the.url()).get(name, {})
    change = drafts.change(settings.sources_folder(), forms.entry_of(found), name)
    return {"declaration": forms.entry_of(found), "seen": change.seen, "state": overview.listed(found, latest)}


@router.put("/sources/{name}")
def put_source(
    name: Name,
    declaration: dict[str, Any],
    the: The,
    seen: Annotated[str | None, Query(description="`seen` of the source that was read: refused if its file changed meanwhile")] = None,
) -> dict[str, Any]:
    """Declare a source: the body is its entry of the YAML. Asked twice, the second time changes nothing."""
    if declaration.get("name", name) != name:
        raise ConfigurationError(f"name: the address says {name}, the declaration another one")
    made = Draft({**declaration, "name": name})
    made.source()
    change = drafts.change(settings.sources_folder(), made.entry, name if _is_declared(the, name) else None)
    if change.difference:
        the.save(change, seen or change.seen)
    return {"declaration": made.entry, "difference": change.difference}


@router.delete("/sources/{name}")
def delete_source(name: Name, the: The) -> dict[str, Any]:
    """Take a source out of its file. Its records, loads and mark stay in the identity database."""
    if not _is_declared(the, name):
        raise NotFound(f"no source is called {name}")
    change = drafts.removal(settings.sources_folder(), name)
    the.save(change, change.seen)
    return {"difference": change.difference}


@router.post("/sources/{name}/check")
def check(name: Name, the: The) -> list[dict[str, str]]:
    """Test the connection, step by step. Nothing is loaded."""
    source = opened(_declared(the, name), the.url)
    with source.redacting():
        return [
            {"step": step, "outcome": outcome, "message": source.redactor.redact(message)}
            for step, outcome, message in overview.checked(source)
        ]


@router.post("/sources/{name}/preview")
def preview(name: Name, the: The, limit: Annotated[int, Query(ge=1, le=1_000)] = 20) -> list[dict[str, Any]]:
    """Some records, raw beside canonical. Nothing is loaded or kept."""
    source = opened(_declared(the, name), the.url)
    with source.redacting():
        return [jsonable_encoder(vars(each)) for each in previewing.preview(source.spec, source.connector, limit, lambda _: None)]


@router.post("/sources/{name}/ingest", status_code=202)
def ingest(name: Name, the: The, choices: Ingest | None = None) -> dict[str, str]:
    """Load it now. Answers the run, and where to follow it."""
    _declared(the, name)
    run_id = the.start(name, (choices or Ingest()).model_dump())
    return {"run_id": run_id, "status": f"{PREFIX}/sources/{name}/runs/{run_id}", "page": f"/sources/{name}/runs/{run_id}"}


@router.get("/sources/{name}/runs/{run_id}")
def run(name: Name, run_id: str, the: The) -> dict[str, Any]:
    """How a run stands: its status, the newest message, the error, and the balance of its load."""
    try:
        one = the.outcome(name, run_id)
    except ConfigurationError as error:
        raise NotFound(str(error)) from None
    loads = listing.loads(the.url(), name, run_id=one.run_id, limit=1)
    return {
        "run_id": one.run_id,
        "status": one.status,
        "message": one.message,
        "error": one.error,
        "done": one.done,
        "load": loads[0] if loads else None,
    }


@router.get("/sources/{name}/loads")
def loads(request: Request, response: Response, name: Name, the: The, *, before: Before = None, limit: Limit = 50) -> list[dict[str, Any]]:
    """What was loaded, newest first, with its balance. The header ``Link`` leads to the next page."""
    return _paged(request, response, listing.loads(the.url(), name, before=before, limit=limit), "load_id", limit)


def _paged(request: Request, response: Response, rows: list[dict[str, Any]], key: str, limit: int) -> list[dict[str, Any]]:
    if len(rows) == limit:
        following = request.url.include_query_params(before=rows[-1][key])
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return rows


@router.get("/sources/{name}/records")
def found_records(
    name: Name,
    the: The,
    query: Annotated[str, Query(min_length=1, max_length=1_024, description="An id, an e-mail address or a phone number")],
) -> list[dict[str, Any]]:
    """Records of the source by id, e-mail address or phone number, each raw beside canonical."""
    return records.found(the.url(), name, query)


@router.get("/quarantine")
def quarantined(
    request: Request,
    response: Response,
    the: The,
    *,
    source_name: str | None = None,
    reason: str | None = None,
    status: str = "open",
    before: Before = None,
    limit: Limit = 50,
) -> list[dict[str, Any]]:
    """Records that could not be merged, newest first, without their fields. The header ``Link`` leads to the next page."""
    wanted = {"reason": reason, "status": None if status == "all" else status}
    found = quarantine.listing(the.url(), source_name, **wanted, before=before, limit=limit)
    return _paged(request, response, found, "quarantine_id", limit)


@router.post("/quarantine/discard")
def discard(body: Ids, the: The) -> dict[str, int]:
    """Settle records as not wanted."""
    return {"discarded": quarantine.discard(the.url(), body.ids)}


@router.post("/sources/{name}/quarantine/replay")
def replay(name: Name, the: The, body: Ids | None = None) -> dict[str, Any]:
    """Merge records again with the present mapping: those that are named, else all open ones."""
    return vars(replayed(_declared(the, name), the.url(), body.ids if body else None))


@router.get("/credentials")
def credentials(the: The) -> list[dict[str, Any]]:
    """Stored credentials, never a secret."""
    return vault.listing(the.url())


@router.put("/credentials/{name}", status_code=204)
def put_credential(name: str, body: Kept, the: The) -> None:
    """Store a secret, over the one of that name."""
    vault.store(the.url(), name, body.kind, body.secret)


@router.post("/credentials/{name}/test")
def test_credential(name: str, the: The) -> list[dict[str, str]]:
    """See whether it works: it opens, a token is got with it, the sources that name it are asked."""
    from identity_pipeline.operations.credentials import tested  # noqa: PLC0415

    found = tested(the.url, name, the.declarations())
    return [{"step": step, "outcome": outcome, "message": message} for step, outcome, message in found]


@router.delete("/credentials/{name}", status_code=204)
def delete_credential(name: str, the: The) -> None:
    """Delete a credential that no source names."""
    if not vault.delete(the.url(), name, the.declarations().naming(name)):
        raise NotFound(f"there is no credential {name[:100]!r}")


def _is_declared(the: Site, name: str) -> bool:
    declared = the.declarations()
    return name in declared.sources or any(problem.name == name for problem in declared.problems)


def _declared(the: Site, name: str) -> Source:
    if not _is_declared(the, name):
        raise NotFound(f"no source is called {name}")
    return the.declarations().source(name)


def problem(status: int, title: str, detail: str, code: str | None = None) -> JSONResponse:
    """An answer that says what is wrong."""
    body = Problem(title=title, status=status, detail=detail, code=code).model_dump(exclude_none=True)
    headers = {"Retry-After": "5"} if status == 503 else {}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def add_problems(app: FastAPI) -> None:
    """Have every error of the API be problem details, and none quote what was sent."""

    @app.exception_handler(PipelineError)
    async def failed(_: Request, error: PipelineError) -> JSONResponse:
        status = 404 if isinstance(error, NotFound) else status_of(error)
        return problem(
            status,
            "not found" if status == 404 else "try again later" if status in {409, 503} else "somebody must act",
            str(error),
            error.code,
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"] if part != "body")
        return problem(422, "the request is not as documented", f"{place}: {fault['msg']}" if place else str(fault["msg"]))

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, "refused", str(error.detail))
