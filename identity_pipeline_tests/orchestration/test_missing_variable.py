"""A variable that nobody set fails the runs of its source, and no other."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan

from identity_pipeline.orchestration import assets

DECLARED = """\
sources:
  - name: crm
    source_type: postgres_identity
    config: {connection_string: {env: NOBODY_SET_THIS}, table: people}
"""


@pytest.fixture
def job(identity_env: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.JobDefinition:
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "all.yaml").write_text(DECLARED)
    monkeypatch.setenv("IDENTITY_SOURCES", str(folder))
    monkeypatch.delenv("NOBODY_SET_THIS", raising=False)
    return assets.definitions().resolve_job_def("ingest")


def test_the_run_starts_and_says_what_to_set(job: dg.JobDefinition):
    """Were it refused while it is planned, a schedule's tick would end there, before the other sources' runs."""
    result = job.execute_in_process(asset_selection=[dg.AssetKey("crm")], raise_on_error=False)
    [failure] = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.description.startswith(
        "crm: config.connection_string is taken from the environment variable NOBODY_SET_THIS, which is not set: set it where"
    )


def test_the_value_is_taken_once_it_is_there(job: dg.JobDefinition, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NOBODY_SET_THIS", "postgresql://u:p@localhost/db")
    assert create_execution_plan(job.get_subset(asset_selection={dg.AssetKey("crm")})).step_keys_to_execute
    result = job.execute_in_process(asset_selection=[dg.AssetKey("crm")], raise_on_error=False)
    [failure] = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    assert "localhost" in failure.description, "it got as far as the network guard"


@pytest.mark.parametrize("changed", [{"table": "others"}, {"connection_string": {"env": "ANOTHER"}}])
def test_a_run_may_not_bring_settings_of_its_own(job: dg.JobDefinition, monkeypatch: pytest.MonkeyPatch, changed: dict):
    """It could point the source elsewhere, and its secret would go there."""
    monkeypatch.setenv("NOBODY_SET_THIS", "postgresql://u:p@localhost/db")
    config = {"connection_string": {"env": "NOBODY_SET_THIS"}, "table": "people"} | changed
    run_config = {"resources": {"crm": {"config": config}}}
    result = job.execute_in_process(asset_selection=[dg.AssetKey("crm")], run_config=run_config, raise_on_error=False)
    [failure] = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.description.startswith(f"crm: this run's configuration sets {next(iter(changed))} of the source to another value")
