"""The list of sources."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from identity_pipeline.core import settings
from identity_pipeline.core.errors import PipelineError
from identity_pipeline.core.secret import Credential, Reference
from identity_pipeline.credentials import vault
from identity_pipeline.operations import drafts, overview
from identity_pipeline.store import listing, quarantine
from identity_pipeline.web.api import The
from identity_pipeline.web.render import bars, page
from identity_pipeline.web.site import Site

router = APIRouter(include_in_schema=False)


@router.get("/sources")
def sources(request: Request, the: The) -> Response:
    """The list."""
    declared, fault = the.declarations(), ""
    latest: dict[str, dict[str, Any]] = {}
    history: dict[str, list[int]] = {}
    try:
        latest, history = listing.latest(the.url()), listing.sizes(the.url(), 12)
        dead = _dead_grants(the)
        waiting = {row["source_name"]: row["open"] for row in quarantine.counts(the.url())}
    except PipelineError as error:
        fault, waiting, dead = str(error), {}, set()
    rows = [
        overview.listed(source, latest.get(source.name, {}))
        | {
            "open": waiting.get(source.name, 0),
            "bars": bars(history.get(source.name, []), 60, 18),
            "error": latest.get(source.name, {}).get("error"),
            "reconnect": next((name for name in dead if name in map(_stored_as, source.references.values())), None),
        }
        for source in declared.sources.values()
    ]
    return page(
        request, "sources", rows=sorted(rows, key=lambda row: row["source_name"]), problems=declared.problems, fault=fault,
        daemon=bool(fault) or the.daemon_alive(), folder=settings.sources_folder(),
    )  # fmt: skip


def _dead_grants(the: Site) -> set[str]:
    """Names of the credentials that somebody has to connect again."""
    return {row["name"] for row in vault.listing(the.url()) if row["status"] == "needs_reconnect"}


def _stored_as(reference: Reference) -> str | None:
    return reference.name if isinstance(reference, Credential) else None


@router.post("/sources/{name}/delete")
def delete(name: str, the: The) -> Response:
    """Take a source out of its file."""
    change = drafts.removal(settings.sources_folder(), name)
    the.save(change, change.seen)
    return RedirectResponse("/sources", 303)
