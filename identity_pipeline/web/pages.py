"""The pages: HTML from the same functions that the API answers with."""

import hashlib
import html
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.concurrency import run_in_threadpool

from identity_pipeline import connectors
from identity_pipeline.core import settings
from identity_pipeline.core.balance import COUNTS
from identity_pipeline.core.errors import ConfigurationError, PipelineError
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.core.secret import Credential, Reference
from identity_pipeline.credentials import vault
from identity_pipeline.declarations.opened import opened
from identity_pipeline.loading import preview as previewing
from identity_pipeline.operations import drafts, overview
from identity_pipeline.operations.drafts import Change, Draft
from identity_pipeline.operations.replay import replayed
from identity_pipeline.store import listing, quarantine, records
from identity_pipeline.web import forms
from identity_pipeline.web.access import Person
from identity_pipeline.web.api import The
from identity_pipeline.web.guard import COOKIE
from identity_pipeline.web.site import Site

HERE = Path(__file__).parent
_NOTHING = "\N{EN DASH}"
_PREVIEWED = 20
_PLOTTED = 40
_GROUPS = {"api": "Programs with an API key", "oauth": "Programs that you sign in to", "files": "Files", "sql": "Databases"}

router = APIRouter(include_in_schema=False)


def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"moment": _moment, "number": _number, "when": lambda value: value.isoformat() if value else ""}
    made.globals |= {"COUNTS": COUNTS, "canonical": forms.CANONICAL_FIELDS}
    return made


def _moment(value: datetime | None) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if value else _NOTHING


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:,}"


_ENVIRONMENT = _templates()


def page(request: Request, template: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
    """One page, for the person who asks."""
    text = _ENVIRONMENT.get_template(f"{template}.html").render(person=request.state.person, path=request.url.path, **values)
    return HTMLResponse(text, status)


# -- Sources ------------------------------------------------------------------------------------


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
            "bars": _bars(history.get(source.name, []), 60, 18),
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


def _bars(sizes: list[int], width: int, height: int) -> list[tuple[float, float, float, float]]:
    """x, y, width and height of a bar for each number, the oldest first."""
    most, step = max([*sizes, 1]), width / max(len(sizes), 8)
    return [
        (
            round(n * step, 1),
            round(height - max(1.0, height * size / most), 1),
            round(step * 0.8, 1),
            round(max(1.0, height * size / most), 1),
        )
        for n, size in enumerate(sizes)
    ]


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


async def _filled(request: Request) -> dict[str, str]:
    form = await request.form()
    return {name: value for name, value in form.items() if isinstance(value, str)}


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
    form = await _filled(request)
    return StreamingResponse(_steps(the, form), media_type="text/html")


def _steps(the: Site, form: dict[str, str]) -> Iterator[str]:
    redactor = Redactor()
    try:
        draft, _ = _draft(the, form)
        source = opened(draft.source(), the.url, redactor, draft.typed)
        failed = False
        for step, outcome, message in overview.checked(source):
            failed = failed or outcome == "failed"
            yield _step(outcome, step, redactor.redact(message))
        yield _step("failed", "done", "Mend what failed, then test again.") if failed else _step("ok", "done", "The connection works.")
    except PipelineError as error:
        yield _step("failed", "settings", redactor.redact(str(error)))
    except Exception as error:  # the stream has begun: the page is told in its own form
        logging.getLogger("identity_pipeline.web").exception("a connection test failed unexpectedly")
        yield _step("failed", "unexpected", f"{type(error).__name__}: the server's log says where")


def _step(outcome: str, step: str, message: str) -> str:
    return f'<li class="step {outcome}"><b>{html.escape(step.replace("_", " "))}</b> {html.escape(message)}</li>\n'


@router.post("/sources/draft-preview")
async def preview(request: Request, the: The) -> Response:
    """Twenty records of what the form holds: raw beside canonical, how full each field is, what could be the cursor."""
    form = await _filled(request)
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
    form = await _filled(request)
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
    _, change = _change(the, await _filled(request))
    return Response(
        change.after or "", media_type="application/yaml", headers={"Content-Disposition": f'attachment; filename="{change.path.name}"'}
    )


@router.post("/sources/draft-save")
async def save(request: Request, the: The) -> Response:
    """Write the file, store what was typed as a secret, have Dagster load it."""
    form = await _filled(request)
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


@router.post("/sources/{name}/delete")
def delete(name: str, the: The) -> Response:
    """Take a source out of its file."""
    change = drafts.removal(settings.sources_folder(), name)
    the.save(change, change.seen)
    return RedirectResponse("/sources", 303)


# -- One source ---------------------------------------------------------------------------------


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
        "bars": _bars([load["inserted"] + load["updated"] for load in reversed(loads)], 600, 90),
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
    form = await _filled(request)
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


# -- Credentials --------------------------------------------------------------------------------


@router.get("/credentials")
def credentials(request: Request, the: The, done: str = "", source_type: str = "", name: str = "") -> Response:
    """What is stored, how it stands, by which sources it is named; forms to store a secret and to connect an account."""
    from identity_pipeline.credentials import grant  # noqa: PLC0415 - the HTTP client

    rows, declared = vault.listing(the.url()), the.declarations()
    apps = {row["vendor"] for row in rows if row["kind"] == "oauth_app"}
    return page(
        request,
        "credentials",
        rows=rows,
        users={row["name"]: declared.naming(row["name"]) for row in rows},
        vendors=grant.vendors(),
        apps=apps,
        callback=the.public_url + grant.CALLBACK,
        done=done,
        source_type=source_type,
        name=name,
    )


@router.post("/credentials")
def put_credential(
    the: The, name: Annotated[str, Form()], secret: Annotated[str, Form()], kind: Annotated[str, Form()] = vault.API_KEY
) -> Response:
    """Store a secret."""
    vault.store(the.url(), name.strip(), kind.strip() or vault.API_KEY, secret)
    return RedirectResponse(f"/credentials?done={quote(name.strip() + ' is stored.')}", 303)


@router.post("/credentials/app")
async def put_app(request: Request, the: The) -> Response:
    """Store the OAuth app of a vendor."""
    from identity_pipeline.credentials import flow, grant  # noqa: PLC0415

    form = await _filled(request)
    given = {each: form.get(each, "").strip() for each in ("client_id", "client_secret", "authorize_url", "token_url")}
    await run_in_threadpool(grant.store_app, the.url(), form.get("vendor", ""), flow.App(**given))
    return RedirectResponse(f"/credentials?done={quote('The app of ' + form.get('vendor', '') + ' is stored.')}#connect", 303)


@router.post("/credentials/connect")
async def connect(request: Request, the: The) -> Response:
    """Lead to the vendor, where the owner of the account agrees."""
    from identity_pipeline.credentials import grant  # noqa: PLC0415

    form = await _filled(request)
    options = {
        "tenant": form.get("tenant", "").strip(),
        "session": _browser(request),
        "other_account": bool(form.get("other_account")),
        "redirect": the.public_url + grant.CALLBACK,
    }
    begun = await run_in_threadpool(
        lambda: grant.begin(the.url(), form.get("source_type", ""), form.get("name", "").strip(), **options)  # type: ignore[arg-type] - as named above
    )
    answer = page(request, "connect", begun=begun, name=form.get("name", "").strip())
    answer.headers["Refresh"] = f"0; url={begun.address}"  # a redirect would be one of the form's, which our own policy forbids
    return answer


@router.get("/oauth/callback")
def callback(request: Request, the: The) -> Response:
    """Where vendors lead back to: what they granted is stored."""
    from identity_pipeline.credentials import grant  # noqa: PLC0415

    person: Person = request.state.person
    if not person.may_change:
        return page(
            request,
            "fault_page",
            status=403,
            title="Not connected",
            message=f"{person.name} may look and not change anything: ask an operator.",
        )
    done = grant.finish(the.url(), str(request.url), session=_browser(request), named_by=the.declarations().naming)
    said = f"{done.name} is connected as {done.account} ({', '.join(done.scopes)})."
    return RedirectResponse(f"/credentials?done={quote(said)}&name={quote(done.name)}", 303)


def _browser(request: Request) -> str:
    """A text that only the browser of this session knows."""
    return hashlib.sha256(request.cookies.get(COOKIE, "").encode()).hexdigest()


@router.post("/credentials/{name}/test")
def test_credential(the: The, name: str) -> Response:
    """See whether it works, as steps."""
    from identity_pipeline.operations.credentials import tested  # noqa: PLC0415

    try:
        steps = [_step(outcome, what, message) for what, outcome, message in tested(the.url, name, the.declarations())]
    except PipelineError as error:
        steps = [_step("failed", name, str(error))]
    return HTMLResponse(f'<ul class="steps">{"".join(steps)}</ul>')


@router.post("/credentials/{name}/delete")
def delete_credential(the: The, name: str) -> Response:
    """Delete a credential that nothing names."""
    vault.delete(the.url(), name, the.declarations().naming(name))
    return RedirectResponse(f"/credentials?done={quote(name + ' is deleted.')}", 303)
