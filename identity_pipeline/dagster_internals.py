"""Everything that we use of Dagster and that Dagster does not call public, in one place.

Dagster is pinned exactly; whoever raises the pin looks here first.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import DagsterInstance
from dagster._config.config_schema import UserConfigSchema
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.utils import DISALLOWED_NAMES
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.api import execute_run_iterator
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, RETRY_ON_ASSET_OR_OP_FAILURE_TAG, WILL_RETRY_TAG
from dagster._core.workspace.load import location_origins_from_yaml_paths
from dagster._serdes import ConfigurableClassData
from dagster._utils.interrupts import capture_interrupts
from dagster._utils.schedules import cron_string_iterator, is_valid_cron_schedule
from dagster.version import __version__

if TYPE_CHECKING:  # a seventh of a second, for the web server alone
    from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext

__all__ = [
    "DISALLOWED_NAMES",
    "PARENT_RUN_ID_TAG",
    "RETRY_ON_ASSET_OR_OP_FAILURE_TAG",
    "WILL_RETRY_TAG",
    "CheckRunHealthResult",
    "ConfigurableClassData",
    "DagsterExecutionInterruptedError",
    "DagsterRun",
    "DefaultRunLauncher",
    "InMemoryJob",
    "InstanceRef",
    "LaunchRunContext",
    "ModuleCodePointer",
    "UserConfigSchema",
    "WorkerStatus",
    "capture_interrupts",
    "cron_string_iterator",
    "enqueue",
    "enqueue_in",
    "execute_run_iterator",
    "execute_run_of",
    "is_valid_cron_schedule",
    "job_origin",
    "keep_connections",
    "user_interface",
    "workspace_of",
]

_STATEMENT_MILLISECONDS = 300_000
_REPOSITORY = "__repository__"
"""What Dagster calls the repository of a code location that has one only."""


def job_origin(workspace: Path, job: str) -> RemoteJobOrigin | None:
    """Where the UI finds the job of a run that no code server has started. None if the workspace does not name our module."""
    for origin in location_origins_from_yaml_paths([str(workspace)]):
        named = isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin) and origin.loadable_target_origin.module_name
        if named == "identity_pipeline.definitions":
            return RemoteJobOrigin(RemoteRepositoryOrigin(origin, _REPOSITORY), job)
    return None


def keep_connections(instance: DagsterInstance) -> None:
    """Hold Dagster's connections open in this process: it opens one for each statement otherwise, some sixty in a short run."""
    instance.optimize_for_webserver(statement_timeout=_STATEMENT_MILLISECONDS, pool_recycle=3600, max_overflow=10)


def execute_run_of(run_id: str, ref: InstanceRef, tags: dict[str, str]) -> None:
    """Execute a run that is already there, as Dagster's own run workers do. ``tags`` are set on it first."""
    from dagster._cli.api import _execute_run_command_body  # noqa: PLC0415 - it brings what only run workers need

    with suppress(KeyboardInterrupt), capture_interrupts(), DagsterInstance.from_ref(ref) as instance:
        keep_connections(instance)
        instance.add_run_tags(run_id, tags)
        _execute_run_command_body(run_id, instance, lambda _event: None, set_exit_code_on_failure=False)


def enqueue(
    instance: DagsterInstance, workspace: Path, job: str, runs: Mapping[str, tuple[Mapping[str, object], dict[str, str]]]
) -> dict[str, str]:
    """Enqueue one run of the job for each selection, which has its run config and tags. Selection → run id.

    `dagster job launch` prints no run id and loads the code location again for every run: this is what it is made of.
    """
    from dagster._cli.workspace.cli_target import get_workspace_from_cli_opts  # noqa: PLC0415 - a code server and half a second, for this alone
    from dagster_shared.cli import WorkspaceOpts  # noqa: PLC0415

    with get_workspace_from_cli_opts(instance, __version__, WorkspaceOpts(workspace=(str(workspace),)), log_level="ERROR") as context:
        return enqueue_in(context, job, runs)


def enqueue_in(
    context: "WorkspaceRequestContext", job: str, runs: Mapping[str, tuple[Mapping[str, object], dict[str, str]]]
) -> dict[str, str]:
    """As :func:`enqueue`, in a workspace that is loaded already."""
    from dagster._cli.job import _create_run  # noqa: PLC0415 - it brings the command line
    from dagster._cli.workspace.cli_target import (  # noqa: PLC0415
        get_code_location_from_workspace,
        get_remote_job_from_remote_repo,
        get_remote_repository_from_code_location,
    )

    enqueued, instance = {}, context.instance
    location = get_code_location_from_workspace(context, None)
    repository = get_remote_repository_from_code_location(location, None)
    remote_job = get_remote_job_from_remote_repo(repository, job)
    for selection, (run_config, tags) in runs.items():
        run = _create_run(
            instance=instance,
            code_location=location,
            remote_repo=repository,
            remote_job=remote_job,
            run_config=run_config,
            tags=tags,
            op_selection=[selection],
            run_id=None,
        )
        instance.submit_run(run.run_id, context)
        enqueued[selection] = run.run_id
    return enqueued


@contextmanager
def workspace_of(instance: DagsterInstance, workspace: Path) -> Iterator["WorkspaceProcessContext"]:
    """A workspace with its code servers, for a web server."""
    from dagster._core.workspace.context import WorkspaceProcessContext  # noqa: PLC0415
    from dagster._core.workspace.load_target import WorkspaceFileTarget  # noqa: PLC0415

    with WorkspaceProcessContext(instance, WorkspaceFileTarget([str(workspace)]), version=__version__) as context:
        yield context


def user_interface(
    workspace: "WorkspaceProcessContext", may_change: Callable[[Any], bool], changed: Callable[[Any, str, int], None]
) -> Any:
    """Dagster's UI with its GraphQL, as an ASGI application.

    ``may_change``: of a connection, whether it is an operator's. ``changed`` is told of each mutation: the connection,
    the mutation's names, the status of the answer.
    """
    from dagster_webserver.webserver import DagsterWebserver  # noqa: PLC0415 - GraphQL's schema, for the web server alone

    class ByRole(DagsterWebserver):
        def _make_request_context(self, conn: Any) -> Any:
            context = super()._make_request_context(conn)
            context._read_only = context._read_only or not may_change(conn)  # noqa: SLF001 - each request has a context of its own
            return context

        def graphql_execution_thread(self, request: Any, query: str, variables: dict[str, Any] | None, operation_name: str | None) -> Any:
            answer = super().graphql_execution_thread(request, query, variables, operation_name)
            if names := _mutations(query, operation_name):
                changed(request, names, answer.status_code)
            return answer

    return ByRole(workspace).create_asgi_app()


def _mutations(query: str, operation_name: str | None) -> str:
    """The names of the mutations that a document executes, empty if it only asks."""
    from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse  # noqa: PLC0415 - comes with the web server
    from graphql.language import FieldNode  # noqa: PLC0415

    try:
        document = parse(query)
    except GraphQLError:
        return ""
    found = [
        part.name.value if isinstance(part, FieldNode) else "a fragment"
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode) and node.operation is OperationType.MUTATION
        if not operation_name or (node.name and node.name.value == operation_name)
        for part in node.selection_set.selections
    ]
    return ", ".join(found)
