"""The form of a source: choose its type, fill it in, test it, look at its records, save it."""

import logging
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from identity_pipeline import connectors
from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, PipelineError
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.credentials import vault
from identity_pipeline.declarations.opened import opened
from identity_pipeline.loading import preview as previewing
from identity_pipeline.operations import drafts, overview
from identity_pipeline.operations.drafts import Change, Draft
from identity_pipeline.web import forms
from identity_pipeline.web.api import The
from identity_pipeline.web.render import filled, page, step
from identity_pipeline.web.site import Site

_PREVIEWED = 20
_GROUPS = {"api": "Programs with an API key", "oauth": "Programs that you sign in to", "files": "Files", "sql": "Databases"}

router = APIRouter(include_in_schema=False)


@router.get("/sources/new-source")
def choose(request: Request) -> Response:
    """Choose a source type."""
    built = [overview.source_type(name) for name in overview.source_types()]
    grouped = {title: [row for row in built if row.get("group") == group] for group, title in _GROUPS.items()}
    return page(request, "choose", groups=grouped)


@router.get("/sources/new-source/{source_type}")
def new(request: Request, the: The, source_type: str) -> Response:
    """An empty form."""
    return _form(request, the, source_type, _starting(source_type), was=None)


def _starting(source_type: str) -> dict[str, Any]:
    if source_type not in connectors.modules():
        raise ConfigurationError(f"no source type is called {source_type[:60]!r}: choose one from the list")
    known = connectors.connector(source_type).cursor_columns
    first = next(((name, column) for name, column in known.items() if name != "*"), None)
    return {"source_type": source_type, **({"cursor_column": first[0], "cursor_type": first[1].type} if first and first[1].type else {})}


@router.get("/sources/{name}/edit")
def edit(request: Request, the: The, name: str) -> Response:
    """The form of a declared source."""
    source = the.declarations().source(name)
    return _form(request, the, source.source_type, forms.entry_of(source), was=name)


def _form(
    request: Request, the: Site, source_type: str, entry: dict[str, Any], *, was: str | None, fault: str = "", status: int = 200
) -> Response:
    about = overview.source_type(source_type)
    shown = forms.groups(source_type, entry, fault)
    placed = any(field.error for group in shown for field in group.fields)
    folder = settings.sources_folder()
    values = {
        "about": about,
        "groups": shown,
        "was": was,
        "seen": drafts.seen(folder, was),
        "fault": "" if placed else fault,
        "stored": _stored(the),
        "cursors": about["cursor_columns"],
        "writable": drafts.writable(folder),
        "granted": _granted(source_type),
    }
    return page(request, "form", status=status, **values)


def _granted(source_type: str) -> bool:
    """True for what is connected by OAuth."""
    from identity_pipeline.credentials import grant  # noqa: PLC0415 - the HTTP client

    return any(source_type in vendor.scopes for vendor in grant.vendors())


def _stored(the: Site) -> list[str]:
    try:
        return [row["name"] for row in vault.listing(the.url())]
    except PipelineError:
        return []


def _draft(the: Site, form: dict[str, str]) -> tuple[Draft, str | None]:
    was = form.get("was") or None
    source_type = form.get("source_type", "")
    if source_type not in connectors.modules():
        raise ConfigurationError(f"no source type is called {source_type[:60]!r}")
    known = the.declarations().sources
    present = forms.entry_of(known[was]) if was in known else None
    return forms.draft(source_type, form, present, frozenset(_stored(the))), was


@router.post("/sources/draft-check")
async def check(request: Request, the: The) -> Response:
    """Test what the form holds, step by step as they end. What is typed there lives in memory only."""
    form = await filled(request)
    return StreamingResponse(_steps(the, form), media_type="text/html")


def _steps(the: Site, form: dict[str, str]) -> Iterator[str]:
    redactor = Redactor()
    try:
        draft, _ = _draft(the, form)
        source = opened(draft.source(), the.url, redactor, draft.typed)
        failed = False
        for name, outcome, message in overview.checked(source):
            failed = failed or outcome == "failed"
            yield step(outcome, name, redactor.redact(message))
        yield step("failed", "done", "Mend what failed, then test again.") if failed else step("ok", "done", "The connection works.")
    except PipelineError as error:
        yield step("failed", "settings", redactor.redact(str(error)))
    except Exception as error:  # the stream has begun: the page is told in its own form
        logging.getLogger("identity_pipeline.web").exception("a connection test failed unexpectedly")
        yield step("failed", "unexpected", f"{type(error).__name__}: the server's log says where")


@router.post("/sources/draft-preview")
async def preview(request: Request, the: The) -> Response:
    """Twenty records of what the form holds: raw beside canonical, how full each field is, what could be the cursor."""
    form = await filled(request)
    return await run_in_threadpool(_preview, request, the, form)


def _preview(request: Request, the: Site, form: dict[str, str]) -> Response:
    redactor, said = Redactor(), list[str]()
    try:
        draft, _ = _draft(the, form)
        source = opened(draft.source(), the.url, redactor, draft.typed)
        found = list(previewing.preview(source.spec, source.connector, _PREVIEWED, said.append))
    except PipelineError as error:
        return page(request, "fault", message=redactor.redact(str(error)))
    taken = {name: field for field in ("external_id", *forms.CANONICAL_FIELDS) for name in _names_of(source.spec.field_map, field)}
    fields = list(dict.fromkeys(name for each in found for name in each.raw))
    rows = [
        {
            "name": name,
            "full": sum(each.raw.get(name) not in (None, "") for each in found),
            "example": next((each.raw[name] for each in found if each.raw.get(name)), ""),
            "canonical": taken.get(name, ""),
            "cursor": _may_be_cursor(name),
        }
        for name in fields
    ]
    shown = [field for field in forms.CANONICAL_FIELDS if any((each.canonical or {}).get(field) not in (None, [], "") for each in found)]
    return page(request, "preview", found=found, rows=rows, shown=shown, said=[redactor.redact(each) for each in said])


def _names_of(field_map: Any, field: str) -> tuple[str, ...]:
    value = getattr(field_map, field, ())
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, tuple) else ()


def _may_be_cursor(name: str) -> bool:
    lower = name.lower()
    return any(word in lower for word in ("updat", "modif", "chang", "last_seen", "timestamp"))


@router.post("/sources/draft-yaml")
async def as_yaml(request: Request, the: The) -> Response:
    """The file as it would be written, and what changes in it."""
    form = await filled(request)
    return await run_in_threadpool(_difference, request, the, form)


def _difference(request: Request, the: Site, form: dict[str, str]) -> Response:
    try:
        draft, change = _change(the, form)
    except ConfigurationError as error:
        return page(request, "fault", message=str(error))
    stored = [draft.entry["config"][setting]["credential"] for setting in draft.typed]
    return page(request, "difference", change=change, stored=stored, writable=drafts.writable(settings.sources_folder()))


def _change(the: Site, form: dict[str, str]) -> tuple[Draft, Change]:
    """What the form asks for, and what that does to its file.

    Raises:
        ConfigurationError: ``field: what is wrong with it``.
    """
    draft, was = _draft(the, form)
    draft.source()
    return draft, drafts.change(settings.sources_folder(), draft.entry, was)


@router.post("/sources/draft-download")
async def download(request: Request, the: The) -> Response:
    """The file as it would be written, to be put where the sources folder comes from."""
    _, change = _change(the, await filled(request))
    return Response(
        change.after or "", media_type="application/yaml", headers={"Content-Disposition": f'attachment; filename="{change.path.name}"'}
    )


@router.post("/sources/draft-save")
async def save(request: Request, the: The) -> Response:
    """Write the file, store what was typed as a secret, have Dagster load it."""
    form = await filled(request)
    return await run_in_threadpool(_save, request, the, form)


def _save(request: Request, the: Site, form: dict[str, str]) -> Response:
    try:
        draft, change = _change(the, form)
        the.save(change, form.get("seen", ""), draft)
    except ConfigurationError as error:
        return _form(
            request, the, form.get("source_type", ""), _as_filled(the, form), was=form.get("was") or None, fault=str(error), status=422
        )
    return RedirectResponse(f"/sources/{draft.entry['name']}", 303)


def _as_filled(the: Site, form: dict[str, str]) -> dict[str, Any]:
    """What a form that was refused shows. A secret that was typed is not in it: it is typed again."""
    source_type = form.get("source_type", "")
    begun = _starting(source_type) | {"name": form.get("name", "")}
    try:
        draft, was = _draft(the, form)
    except ConfigurationError:
        return begun
    known = the.declarations().sources
    before = forms.entry_of(known[was]).get("config", {}) if was in known else {}
    config = {name: value for name, value in draft.entry.get("config", {}).items() if name not in draft.typed}
    return draft.entry | {"config": config | {name: before[name] for name in draft.typed if name in before}}
