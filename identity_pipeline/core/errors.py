"""Errors, ordered by who must act next.

::

    PipelineError
    ├── OperatorError            exit 1   a person must change something, a retry alone is useless
    │   ├── ConfigurationError            a setting is missing, wrong or refused
    │   ├── CredentialError               the source does not accept the credential
    │   ├── PermissionDenied              the credential works but may not read this
    │   ├── SourceRejected                the source refuses the request as it stands
    │   ├── SchemaChanged                 a field that we map is gone
    │   └── LimitExceeded                 the input is larger than we read
    ├── TryLater                 exit 3   nobody must act: the same call may work later
    │   ├── SourceUnavailable             refused, reset, timed out, 5xx
    │   ├── RateLimited                   the source asks us to slow down
    │   ├── TargetUnavailable             the identity database does not answer
    │   ├── WriteConflict                 another part wrote the same record at this moment
    │   └── AlreadyRunning                another load holds the source
    ├── Superseded               exit 3   a newer load took the source over; nothing is lost
    ├── LandedPartLost           exit 3   what was landed is gone or damaged: a new run reads it again
    └── ContractBroken           exit 1   the source does not behave as published: a developer looks
        └── TruncatedBody                 fewer bytes than promised (read again, then given up)

A message answers: what was tried, what came back, who does what next. It holds no secret and
nothing of a record.
"""

from typing import ClassVar, Self


class PipelineError(Exception):
    """A failure with a known cause. ``retryable`` says whether the same call may work later.

    ``wait`` is how many seconds the source asks us to wait before that, infinite where it does not
    say how long. ``exhausted`` says that it was tried again as often as makes sense: no layer above
    repeats it.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str = "", *, wait: float | None = None, exhausted: bool = False) -> None:
        super().__init__(message)
        self.wait, self.exhausted = wait, exhausted or wait is not None

    def reworded(self, message: str) -> Self:
        """The same error in other words."""
        return type(self)(message, wait=self.wait, exhausted=self.exhausted)


class OperatorError(PipelineError):
    """A person must change something."""

    code = "operator"


class ConfigurationError(OperatorError):
    """A setting is missing, wrong or refused."""

    code = "configuration"


class CredentialError(OperatorError):
    """The source does not accept the credential."""

    code = "credential"


class PermissionDenied(OperatorError):
    """The credential works, but may not read this."""

    code = "permission"


class SourceRejected(OperatorError):
    """The source refuses the request as it stands (400, 404, 422)."""

    code = "source_rejected"


class SchemaChanged(OperatorError):
    """A field that is mapped is gone from the source."""

    code = "schema_changed"


class LimitExceeded(OperatorError):
    """The input is larger than we read."""

    code = "limit_exceeded"


class TryLater(PipelineError):
    """Nobody must act; the same call may work later."""

    code = "try_later"
    retryable = True
    exit_status = 3


class SourceUnavailable(TryLater):
    """The source refused, reset, timed out or answered 5xx."""

    code = "source_unavailable"


class RateLimited(TryLater):
    """The source asks us to slow down for longer than a run may wait."""

    code = "rate_limited"


class TargetUnavailable(TryLater):
    """The identity database does not answer."""

    code = "target_unavailable"


class WriteConflict(TryLater):
    """Another part of the load wrote the same record at the same moment; the part is merged again."""

    code = "write_conflict"


class AlreadyRunning(TryLater):
    """Another load holds the source."""

    code = "already_running"


class ContractBroken(PipelineError):
    """The source does not behave as published."""

    code = "contract_broken"


class TruncatedBody(ContractBroken):
    """Fewer bytes arrived than were promised."""

    code = "truncated_body"
    retryable = True


class Superseded(PipelineError):
    """A newer load took the source over; what this one holds is no longer needed."""

    code = "superseded"
    exit_status = 3


class LandedPartLost(PipelineError):
    """What was landed is gone or damaged; only a new run reads it again."""

    code = "landed_part_lost"
    exit_status = 3
