"""The boundary: one failure of ours becomes one of Dagster's, with the retry decided."""

import dagster as dg
import pytest
import yaml
from dagster._core.storage.tags import WILL_RETRY_TAG

from identity_pipeline.core.errors import ConfigurationError, CredentialError, PipelineError, SourceUnavailable
from identity_pipeline.core.settings import PACKAGE
from identity_pipeline.orchestration.boundary import boundary


@pytest.mark.parametrize(
    ("error", "again"),
    [(SourceUnavailable("no answer"), "true"), (ConfigurationError("no such table"), "false"), (CredentialError("refused"), "false")],
)
def test_a_run_is_started_again_only_if_that_may_help(error: PipelineError, again: str):
    """With the retries of the project's own dagster.yaml, whose daemon goes by this tag."""

    @dg.op
    def read(context: dg.OpExecutionContext):
        with boundary(context):
            raise error

    @dg.job
    def ingest():
        read()

    retries = yaml.safe_load((PACKAGE.parent / "dagster.yaml").read_text())["run_retries"]
    with dg.instance_for_test(overrides={"run_retries": retries}) as instance:
        run_id = ingest.execute_in_process(instance=instance, raise_on_error=False).run_id
        run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert run.tags[WILL_RETRY_TAG] == again
