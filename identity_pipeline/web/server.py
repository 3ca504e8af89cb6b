"""One ASGI application of everything: the guard, our pages and API, and Dagster's UI for the rest."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import uvicorn
from dagster_postgres.utils import DagsterPostgresException
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from sqlalchemy.exc import OperationalError
from starlette.staticfiles import StaticFiles

from identity_pipeline import __version__
from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError, PipelineError, TargetUnavailable
from identity_pipeline.dagster_internals import keep_connections, user_interface, workspace_of
from identity_pipeline.embedded.location import database_url
from identity_pipeline.web import access, api, guard, oidc, pages, signing_in
from identity_pipeline.web.access import Access, Person
from identity_pipeline.web.guard import OURS, STATIC, Guard
from identity_pipeline.web.render import HERE, page
from identity_pipeline.web.site import Reloading, Site, reload, status_of

if TYPE_CHECKING:
    import dagster as dg

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound


def application(site: Site, interface: Any, hosts: frozenset[str]) -> Guard:
    """The whole server. ``interface``: Dagster's UI, which has every path that is not ours."""
    ours = FastAPI(
        title="Identity Pipeline", version=__version__, openapi_url=f"{api.PREFIX}/openapi.json", docs_url=None, redoc_url=None,
        description="Sources of contacts and customers: declare, test, load, look. Every request carries `Authorization: Bearer TOKEN`.",
    )  # fmt: skip
    ours.state.site = site
    ours.include_router(api.router)
    ours.include_router(pages.router)
    ours.include_router(signing_in.router)
    ours.mount(STATIC.rstrip("/"), StaticFiles(directory=HERE / "static"), name="static")
    _answer_failures(ours)

    @ours.get("/healthz", include_in_schema=False)
    def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok")

    async def parted(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        own = scope["type"] == "http" and (path == "/healthz" or path.startswith(OURS))
        await (ours if own or scope["type"] == "lifespan" else interface)(scope, receive, send)

    return Guard(parted, site.access, hosts, secure=site.public_url.startswith("https://"))


def _answer_failures(app: FastAPI) -> None:
    api.add_problems(app)
    for_programs = dict(app.exception_handlers)

    def by_reader(kind: type[Exception], say: Callable[[Any], tuple[int, str]]) -> None:
        answered = for_programs[kind]

        @app.exception_handler(kind)
        async def failed(request: Request, error: Exception) -> Response:
            if request.url.path.startswith("/api/"):
                return await answered(request, error)  # type: ignore[misc] - they are coroutines
            status, message = say(error)
            if request.headers.get("HX-Request"):
                return page(request, "fault", message=message)
            return page(request, "fault_page", status=status, title=HTTPStatus(status).phrase, message=message)

    by_reader(PipelineError, lambda error: (status_of(error), str(error)))
    by_reader(RequestValidationError, lambda _: (422, "The request is not what the page sends: go back and try again."))
    by_reader(
        api.HTTPException, lambda error: (error.status_code, "There is no such page." if error.status_code == 404 else str(error.detail))
    )

    @app.exception_handler(OperationalError)
    @app.exception_handler(DagsterPostgresException)
    async def lost(request: Request, _: Exception) -> Response:
        down = TargetUnavailable(
            "the identity database, where Dagster keeps its runs, did not answer: nothing was started; try again once it does"
        )
        return await app.exception_handlers[PipelineError](request, down)  # type: ignore[misc] - they are coroutines

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        logging.getLogger("identity_pipeline.web").error(
            "%s %s failed: %s", request.method, request.url.path, type(error).__name__, exc_info=error
        )
        if request.url.path.startswith("/api/"):
            return api.problem(500, "a fault of this program", f"{type(error).__name__}: the server's log says where")
        return page(
            request,
            "fault_page",
            status=500,
            title="A fault of this program",
            message=f"{type(error).__name__}: the server's log says where.",
        )


def known_hosts(host: str, port: int, public_url: str) -> frozenset[str]:
    """The names under which browsers may call the server: anything else is somebody's trick with DNS."""
    local = host in _LOOPBACK | _EVERYWHERE
    names = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")} if local else {f"{host}:{port}"}
    if public_url:
        names.add(urlsplit(public_url).netloc.lower())
    return frozenset(names)


def public_url(host: str, port: int) -> str:
    """``IDENTITY_PUBLIC_URL``, else where the server listens."""
    given = settings.public_url()
    return given or f"http://{'127.0.0.1' if host in _EVERYWHERE else host}:{port}"


def _asking(connection: Any) -> Person:
    return connection.scope["state"]["person"]


@contextmanager
def site_of(instance: "dg.DagsterInstance", host: str, port: int) -> Iterator[tuple[Site, Guard]]:
    """The server's parts, with the workspace loaded.

    Raises:
        ConfigurationError: a way of signing in that this address must not have, or that is set incompletely.
    """
    way = access.mode()
    if way == "none" and host not in _LOOPBACK:
        raise ConfigurationError(f"IDENTITY_AUTH=none is for this machine alone, and the server would listen on {host}: use token")
    given = oidc.Settings.read() if way == "oidc" else None
    keep_connections(instance)
    with workspace_of(instance, settings.project() / "workspace.yaml") as workspace:
        door = Access(database_url, access.installation_key(), way, rules=given.rules if given else "")
        url = public_url(host, port)
        provider = oidc.Provider(given, url + oidc.CALLBACK, door) if given else None
        site = Site(workspace, door, url, Reloading(lambda: reload(workspace)), provider)
        interface = user_interface(
            workspace,
            lambda connection: _asking(connection).may_change,
            lambda connection, names, status: guard.audit(_asking(connection), f"Dagster: {names}", status),
        )
        yield site, application(site, interface, known_hosts(host, port, settings.public_url()))


class _Announcing(uvicorn.Server):
    """Says where it is once it answers."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()


def serve(instance: "dg.DagsterInstance", host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until interrupted. It says where once it answers."""
    guard.keep_audit()
    with site_of(instance, host, port) as (site, app):

        def announce() -> None:
            if site.access.way == "none":
                say("IDENTITY_AUTH=none: whoever reaches this port may do everything")
                say(f"open {site.public_url}/sources; Ctrl-C ends")
                return
            if provider := site.provider:
                say(f"people sign in at {provider.settings.issuer}; register {provider.redirect_uri} there as the redirect URI")
                try:
                    provider.begin("/sources")
                except PipelineError as error:
                    say(f"nobody can sign in there now: {error}")
            say(f"open {site.public_url}/login?once={site.access.link()} (it opens once, within an hour); Ctrl-C ends")
            say(f"later sign in with the key in {access.key_file()}, or with a token: identity-pipeline tokens create NAME")

        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
        )
        _Announcing(config, announce).run()
