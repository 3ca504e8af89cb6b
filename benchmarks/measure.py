"""Measuring one case: CPU of client and server, wall time, the client's peak memory."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU and wall time, and the client's peak resident memory in MB."""

    client_cpu: float
    server_cpu: float
    wall: float
    peak_mb: float

    @property
    def cpu(self) -> float:
        """CPU of client and server together."""
        return self.client_cpu + self.server_cpu


def server_cpu(postmaster: int) -> float:
    """CPU seconds that a server has used: the postmaster, its ended children and its living ones."""
    process = psutil.Process(postmaster)
    times = process.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in process.children(recursive=True):
        try:
            child_times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += child_times.user + child_times.system
    return total


def run(command: list[str], postmaster: int, environment: dict[str, str] | None = None) -> tuple[Cost, dict]:
    """Run a command as its own process; its last line of output may be JSON, which is returned."""
    before, started = server_cpu(postmaster), time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, err = process.stdout.read(), None
    err = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - started
    if process.returncode:
        sys.exit(f"{' '.join(command[:4])} … failed with {process.returncode}:\n{err[-3000:]}")
    # A backend that has just ended is counted once the postmaster has reaped it.
    time.sleep(0.3)
    lines = out.strip().splitlines()
    said = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    # what a child says of its own peak: the system's word for it begins with that of this process
    peak = said.get("peak_mb", usage.ru_maxrss / 1024)
    return Cost(usage.ru_utime + usage.ru_stime, server_cpu(postmaster) - before, wall, peak), said


def postmaster_pid(data: Path) -> int:
    """The process id of the server of a data folder."""
    return int((data / "postmaster.pid").read_text().split("\n", 1)[0])
