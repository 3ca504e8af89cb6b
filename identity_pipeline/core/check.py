"""What a connection test reports."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckStep:
    """One step of a connection test: ``reach``, ``authenticate``, ``permission`` or ``sample``.

    ``message`` says what was found, or what failed and who does what next.
    """

    name: str
    ok: bool
    message: str
