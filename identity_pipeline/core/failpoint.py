"""Labelled points at which a test kills the process, to prove what recovery does.

``IDENTITY_FAILPOINT=merged`` kills with SIGKILL where a run first passes ``reached("merged")``;
``merged:3`` at the third time. Unset, a point costs one look at the environment.
"""

import os
import signal
from collections import Counter

_passed: Counter[str] = Counter()


def reached(label: str) -> None:
    """Die here if the environment asks for it."""
    wanted, _, count = os.environ.get("IDENTITY_FAILPOINT", "").partition(":")
    if wanted == label:
        _passed[label] += 1
        if _passed[label] == int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)
