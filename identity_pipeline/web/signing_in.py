"""The pages by which people come in and leave: with a token, by the link that the server printed, at a provider."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from identity_pipeline.core.errors import ConfigurationError, OperatorError, PipelineError
from identity_pipeline.web import oidc
from identity_pipeline.web.access import SESSION_SECONDS, Person
from identity_pipeline.web.api import The
from identity_pipeline.web.guard import COOKIE, audit
from identity_pipeline.web.oidc import Provider
from identity_pipeline.web.render import page
from identity_pipeline.web.site import Site, status_of

_SIGNING_IN = "identity_signing_in"

router = APIRouter(include_in_schema=False)


def _inside(path: str) -> str:
    """A path of this server, whatever was asked for."""
    parts = urlsplit(path)
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.netloc and "\\" not in path else "/sources"


@router.get("/login")
def login(request: Request, the: The, once: str = "", next: str = "/sources") -> Response:  # noqa: A002 - the word in the address
    """Sign in: by the link that the server printed, at the provider, else with a token."""
    if once and (person := the.access.by_link(once)):
        return _signed_in(request, the, person, "/sources")
    return _login(request, the, next, failed="That link was used already, or is too old." if once else "")


@router.post("/login")
def sign_in(request: Request, the: The, token: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/sources") -> Response:  # noqa: A002
    """Sign in with a token."""
    person = the.access.by_token(token.strip()) if token.strip() else None
    if person is None:
        return _login(request, the, next, status=401, failed="No such token, or it has expired.")
    return _signed_in(request, the, person, _inside(next))


@router.get("/login/provider")
def leave(request: Request, the: The, next: str = "/sources") -> Response:  # noqa: A002
    """Lead to the provider."""
    try:
        where, kept = _provider(the).begin(_inside(next))
    except PipelineError as error:
        return _login(request, the, next, status=status_of(error), failed=str(error))
    answer = RedirectResponse(where, 303)
    answer.set_cookie(_SIGNING_IN, kept, int(oidc.WITHIN), path="/login", httponly=True, samesite="lax", secure=request.state.secure)
    return answer


@router.get(oidc.CALLBACK)
def back(request: Request, the: The) -> Response:
    """Where the provider leads back to."""
    try:
        person, to = _provider(the).finish(request.url.query, request.cookies.get(_SIGNING_IN, ""))
    except PipelineError as error:
        status = 403 if isinstance(error, OperatorError) else status_of(error)
        answer = _login(request, the, "/sources", status=status, failed=str(error))
    else:
        answer = _signed_in(request, the, person, _inside(to))
    answer.delete_cookie(_SIGNING_IN, path="/login")
    return answer


def _provider(the: Site) -> Provider:
    if the.provider is None:
        raise ConfigurationError("people sign in with a token here: IDENTITY_AUTH is not oidc")
    return the.provider


def _login(request: Request, the: Site, next: str, *, failed: str, status: int = 200) -> Response:  # noqa: A002
    return page(request, "login", status=status, next=_inside(next), failed=failed, provider=the.provider)


def _signed_in(request: Request, the: Site, person: Person, to: str) -> Response:
    audit(person, "signed in", 303)
    answer = RedirectResponse(to, 303)
    answer.set_cookie(
        COOKIE, the.access.session(person), max_age=SESSION_SECONDS, httponly=True, samesite="lax", secure=request.state.secure, path="/"
    )
    return answer


@router.post("/logout")
def logout() -> Response:
    """Sign out of this browser."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, path="/")
    return answer
