"""One source: how it stands, its loads, its quarantine, its records, and a run of it as it goes."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.operations import drafts, overview
from identity_pipeline.operations.replay import replayed
from identity_pipeline.store import listing, quarantine, records
from identity_pipeline.web import forms
from identity_pipeline.web.api import The
from identity_pipeline.web.render import bars, filled, page
from identity_pipeline.web.site import Site

_PLOTTED = 40

router = APIRouter(include_in_schema=False)


@router.get("/sources/{name}")
def source(request: Request, the: The, name: str, query: str = "") -> Response:
    """One source: state, history, quarantine, records."""
    declared = the.declarations()
    found = declared.sources.get(name)
    problem = next((each for each in declared.problems if each.name == name), None)
    if found is None and problem is None:
        return page(request, "fault_page", status=404, title="No such source", message=f"No source is called {name[:63]}.")
    url = the.url()
    last = listing.latest(url).get(name, {})
    loads = listing.loads(url, name, limit=_PLOTTED)
    values = {
        "state": overview.listed(found, last) if found else {},
        "fault": last.get("error") if last.get("status") == "failed" else None,
        "loads": loads,
        "bars": bars([load["inserted"] + load["updated"] for load in reversed(loads)], 600, 90),
        "waiting": quarantine.listing(url, name, status="open", limit=50),
        "reasons": [row for row in quarantine.counts(url, by_reason=True) if row["source_name"] == name],
        "records": records.found(url, name, query) if query else [],
        "yaml": _shown(found) if found else "",
    }
    return page(request, "source", name=name, source=found, problem=problem, query=query, daemon=the.daemon_alive(), **values)


def _shown(source: Any) -> str:
    return drafts.text_of(forms.entry_of(source))


@router.post("/sources/{name}/ingest")
async def ingest(request: Request, the: The, name: str) -> Response:
    """Load it now."""
    form = await filled(request)
    limit = form.get("limit", "").strip()
    if limit and not limit.isdecimal():
        raise ConfigurationError("limit: is a whole number: leave it empty to read all")
    choices = {
        "full_refresh": form.get("how") == "full",
        "force": form.get("how") == "force",
        "cursor_after": form.get("cursor_after", "").strip() or None,
        "limit": int(limit) if limit else None,
        "objects": [line.strip() for line in form.get("objects", "").splitlines() if line.strip()],
    }
    run_id = await run_in_threadpool(the.start, name, choices)
    return RedirectResponse(f"/sources/{name}/runs/{run_id}", 303)


@router.get("/sources/{name}/runs/{run_id}")
def run(request: Request, the: The, name: str, run_id: str) -> Response:
    """A run as it goes."""
    return page(request, "run", name=name, **_outcome(the, name, run_id))


@router.get("/sources/{name}/runs/{run_id}/outcome")
def outcome(request: Request, the: The, name: str, run_id: str) -> Response:
    """How it ended, as a part of the page."""
    return page(request, "outcome", name=name, **_outcome(the, name, run_id))


def _outcome(the: Site, name: str, run_id: str) -> dict[str, Any]:
    one = the.outcome(name, run_id)
    loads = listing.loads(the.url(), name, run_id=one.run_id, limit=1)
    return {"one": one, "load": loads[0] if loads else None}


@router.get("/sources/{name}/runs/{run_id}/events")
def events(the: The, name: str, run_id: str) -> Response:
    """What the run says, as server-sent events."""
    the.outcome(name, run_id)

    async def stream() -> AsyncIterator[str]:
        async for kind, text in the.followed(name, run_id):
            data = " ".join(text.split())
            yield f"event: {kind}\ndata: {data}\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


@router.get("/sources/{name}/quarantine/{number}")
def quarantined(request: Request, the: The, name: str, number: int) -> Response:
    """One record that could not be merged, whole."""
    row = quarantine.records(the.url(), [number])[0]
    if row["source_name"] != name:
        raise ConfigurationError(f"{name} has no record {number} in quarantine")
    return page(request, "quarantined", name=name, row=row)


@router.post("/sources/{name}/quarantine")
def settle(the: The, name: str, what: Annotated[str, Form()], ids: Annotated[list[int] | None, Form()] = None) -> Response:
    """Replay or discard records: those that are chosen, else all open ones of the source."""
    url = the.url()
    chosen = ids or [row["quarantine_id"] for row in quarantine.listing(url, name, status="open", limit=10_000)]
    if what == "discard":
        quarantine.discard(url, chosen)
    elif chosen:
        replayed(the.declarations().source(name), url, chosen)
    return RedirectResponse(f"/sources/{name}#quarantine", 303)
