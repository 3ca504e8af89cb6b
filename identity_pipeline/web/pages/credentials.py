"""The credentials: what is stored, and the accounts that are connected."""

import hashlib
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from identity_pipeline.core.errors import PipelineError
from identity_pipeline.credentials import vault
from identity_pipeline.web.access import Person
from identity_pipeline.web.api import The
from identity_pipeline.web.guard import COOKIE
from identity_pipeline.web.render import filled, page, step

router = APIRouter(include_in_schema=False)


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

    form = await filled(request)
    given = {each: form.get(each, "").strip() for each in ("client_id", "client_secret", "authorize_url", "token_url")}
    await run_in_threadpool(grant.store_app, the.url(), form.get("vendor", ""), flow.App(**given))
    return RedirectResponse(f"/credentials?done={quote('The app of ' + form.get('vendor', '') + ' is stored.')}#connect", 303)


@router.post("/credentials/connect")
async def connect(request: Request, the: The) -> Response:
    """Lead to the vendor, where the owner of the account agrees."""
    from identity_pipeline.credentials import grant  # noqa: PLC0415

    form = await filled(request)
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
        steps = [step(outcome, what, message) for what, outcome, message in tested(the.url, name, the.declarations())]
    except PipelineError as error:
        steps = [step("failed", name, str(error))]
    return HTMLResponse(f'<ul class="steps">{"".join(steps)}</ul>')


@router.post("/credentials/{name}/delete")
def delete_credential(the: The, name: str) -> Response:
    """Delete a credential that nothing names."""
    vault.delete(the.url(), name, the.declarations().naming(name))
    return RedirectResponse(f"/credentials?done={quote(name + ' is deleted.')}", 303)
