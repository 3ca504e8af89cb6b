"""Where our errors become Dagster's: once, redacted, with the retry decision made."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from identity_pipeline.core.errors import PipelineError
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.dagster_internals import RETRY_ON_ASSET_OR_OP_FAILURE_TAG, DagsterExecutionInterruptedError


class _Redacting(logging.Filter):
    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._redactor.redact(record.getMessage()), ()
        return True


@contextmanager
def boundary(context: dg.OpExecutionContext, redactor: Redactor | None = None) -> Iterator[None]:
    """Run an op's body: what it raises becomes one :class:`dagster.Failure` that says who acts next.

    What ``redactor`` learns inside is taken out of what is logged and raised from then on. A failure of a
    class we do not know keeps its text to itself, since drivers quote records in theirs: it shows its
    type and where it arose.

    Raises:
        dg.Failure: with ``allow_retries`` from the class of the error.
    """
    redactor = redactor or Redactor()
    redacting = _Redacting(redactor)
    context.log.addFilter(redacting)
    try:
        yield
    except PipelineError as error:
        again = error.retryable and not error.exhausted
        if not again:  # `allow_retries` speaks of the step only: the run itself would be started once more
            context.instance.add_run_tags(context.run_id, {RETRY_ON_ASSET_OR_OP_FAILURE_TAG: "false"})
        raise dg.Failure(
            description=redactor.redact(str(error)),
            metadata={"error_code": error.code, "a_retry_helps": error.retryable},
            allow_retries=again,
        ) from None
    except dg.Failure:
        raise
    except (KeyboardInterrupt, DagsterExecutionInterruptedError):
        # Dagster's retry policy would start the op once more, although somebody pressed Terminate.
        raise dg.Failure(
            description="the run was interrupted: nothing half done stays, and the next load begins at the mark",
            metadata={"error_code": "interrupted", "a_retry_helps": True},
            allow_retries=False,
        ) from None
    except Exception as error:  # noqa: BLE001 - the outermost boundary: an unknown error must not show a record or a secret
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = " ← ".join(f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in reversed(frames))
        raise dg.Failure(
            description=f"unexpected {type(error).__name__} at {where}: please report this; nothing half done stays",
            metadata={"error_code": "unexpected", "a_retry_helps": False},
            allow_retries=False,
        ) from None
    finally:
        context.log.removeFilter(redacting)
