"""What the pages and the API stand on: the workspace of Dagster, the identity database, the sources folder."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from identity_pipeline.core import settings
from identity_pipeline.core.errors import AlreadyRunning, ConfigurationError, PipelineError, TryLater
from identity_pipeline.credentials import vault
from identity_pipeline.declarations import folder
from identity_pipeline.declarations.folder import Declarations
from identity_pipeline.embedded.location import database_url
from identity_pipeline.operations.drafts import Change, Draft
from identity_pipeline.orchestration import health
from identity_pipeline.orchestration.follow import Followed
from identity_pipeline.orchestration.launch import launch_in
from identity_pipeline.web.access import Access
from identity_pipeline.web.oidc import Provider

if TYPE_CHECKING:
    import dagster as dg
    from dagster._core.workspace.context import WorkspaceProcessContext

_LOOK_EVERY = 0.5
_RELOAD_SECONDS = 60.0
_NO_DAEMON = (
    "no daemon takes queued runs up: start the server with `identity-pipeline serve`, which brings one, "
    "or run `dagster-daemon run` beside it"
)


class Reloading:
    """Has Dagster load the declarations again, aside: it takes seconds, and several changes at once are one."""

    def __init__(self, reload: Callable[[], None]) -> None:
        self._reload, self._changed = reload, threading.Condition()
        self._wanted = self._done = 0
        self._at_work = False

    def ask(self) -> None:
        """Something was declared."""
        with self._changed:
            self._wanted += 1
            if not self._at_work:
                self._at_work = True
                threading.Thread(target=self._work, name="reload", daemon=True).start()

    def settled(self, seconds: float) -> bool:
        """Wait until what was declared up to now is loaded; False if it is not in that time."""
        with self._changed:
            wanted = self._wanted
            return self._changed.wait_for(lambda: self._done >= wanted, seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                wanted = self._wanted
                if self._done >= wanted:
                    self._at_work = False
                    return
            try:
                self._reload()
            except Exception:
                logging.getLogger("identity_pipeline.web").exception("the declarations could not be loaded again")
            with self._changed:
                self._done = wanted
                self._changed.notify_all()


@dataclass(frozen=True)
class Site:
    """One server. ``public_url``: where people reach it, without a slash at its end. ``provider``: where they sign in, if not here."""

    workspace: "WorkspaceProcessContext"
    access: Access
    public_url: str
    reloading: Reloading
    provider: Provider | None = None

    @property
    def instance(self) -> "dg.DagsterInstance":
        """Dagster's instance."""
        return self.workspace.instance

    def url(self) -> str:
        """The identity database."""
        return database_url()

    def declarations(self) -> Declarations:
        """What the sources folder holds at this moment."""
        path = settings.sources_folder()
        return folder.load(path) if path.is_dir() else Declarations({}, [])

    def save(self, change: Change, seen: str, draft: Draft | None = None) -> None:
        """Store the secrets that were typed, write the file, have Dagster load it; nothing of it where the file is another one by now."""
        change.judge(seen)
        if draft:
            for setting, secret in draft.typed.items():
                vault.store(self.url(), draft.entry["config"][setting]["credential"], vault.API_KEY, secret)
        change.write(seen)
        self.reloading.ask()

    def daemon_alive(self) -> bool:
        """True if queued runs are started."""
        return health.daemon_alive(self.instance)

    def start(self, name: str, choices: Mapping[str, Any]) -> str:
        """Enqueue a load; its run id.

        Raises:
            ConfigurationError: no such source, or its declaration is broken.
            TryLater: no daemon would take it up.
        """
        self.declarations().source(name)
        if not self.daemon_alive():
            raise TryLater(_NO_DAEMON)
        self.reloading.settled(_RELOAD_SECONDS)
        with self.workspace.create_request_context() as context:
            if not _has_asset(context, name):
                raise TryLater(f"{name} is declared, and Dagster has not loaded it yet: try again in a few seconds")
            return launch_in(context, [name], choices)[name]

    async def followed(self, name: str, run_id: str) -> AsyncIterator[tuple[str, str]]:
        """A run as it goes: (``message``, text) as they come, (``beat``, status) while nothing is new, (``end``, status) at last."""
        one, said, waits = Followed(name, run_id), list[str](), ""
        while not one.done:
            await run_in_threadpool(one.update, self.instance, lambda _, message: said.append(message))
            if one.status == "QUEUED" and (why := await run_in_threadpool(self._why_it_waits)) != waits:
                said.append(waits := why)
            for message in said:
                yield "message", message
            if not said:
                yield "beat", one.status
            said.clear()
            await asyncio.sleep(0 if one.done else _LOOK_EVERY)
        yield "end", one.status

    def outcome(self, name: str, run_id: str) -> Followed:
        """How a run stands now.

        Raises:
            ConfigurationError: there is no such run of this source.
        """
        run = self.instance.get_run_by_id(run_id)
        if run is None or name not in {run.tags.get("identity/source"), *(key.to_user_string() for key in run.asset_selection or ())}:
            raise ConfigurationError(f"{name} has no run {run_id[:40]}")
        one = Followed(name, run_id)
        one.update(self.instance, lambda _, __: None)
        if one.status == "QUEUED":
            one.message = self._why_it_waits()
        return one

    def _why_it_waits(self) -> str:
        return "waiting in the queue" if self.daemon_alive() else _NO_DAEMON


def reload(workspace: "WorkspaceProcessContext") -> None:
    """Load the declarations again: Dagster's UI and the runs that this server starts have them from then on."""
    with workspace.create_request_context() as context:
        for name in context.code_location_names:
            context.reload_code_location(name)


def _has_asset(context: Any, name: str) -> bool:
    return any(key.to_user_string() == name for key in context.asset_graph.get_all_asset_keys())


def status_of(error: PipelineError) -> int:
    """The HTTP status that says who must act."""
    if isinstance(error, AlreadyRunning):
        return 409
    return 503 if error.exit_status == 3 else 422
