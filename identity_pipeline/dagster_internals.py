"""Everything that we use of Dagster and that Dagster does not call public, in one place.

Dagster is pinned exactly; whoever raises the pin looks here first.
"""

from dagster._cli.job import _create_run as create_run
from dagster._cli.workspace.cli_target import (
    get_code_location_from_workspace,
    get_remote_job_from_remote_repo,
    get_remote_repository_from_code_location,
    get_workspace_from_cli_opts,
)
from dagster._config.config_schema import UserConfigSchema
from dagster._core.definitions.utils import DISALLOWED_NAMES
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, RETRY_ON_ASSET_OR_OP_FAILURE_TAG, WILL_RETRY_TAG
from dagster._serdes import ConfigurableClassData
from dagster._utils.schedules import cron_string_iterator, is_valid_cron_schedule
from dagster_shared.cli import WorkspaceOpts

__all__ = [
    "DISALLOWED_NAMES",
    "PARENT_RUN_ID_TAG",
    "RETRY_ON_ASSET_OR_OP_FAILURE_TAG",
    "WILL_RETRY_TAG",
    "ConfigurableClassData",
    "UserConfigSchema",
    "WorkspaceOpts",
    "create_run",
    "cron_string_iterator",
    "get_code_location_from_workspace",
    "get_remote_job_from_remote_repo",
    "get_remote_repository_from_code_location",
    "get_workspace_from_cli_opts",
    "is_valid_cron_schedule",
]
