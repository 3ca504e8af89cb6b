"""One real server for each module: `identity-pipeline serve` with its daemon, and something to read from."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from identity_pipeline.cli.init import init
from identity_pipeline.demo import hubspot_api
from identity_pipeline.demo.hubspot_contacts import demo_contacts
from identity_pipeline_tests.conftest import _administer, _create, _named
from identity_pipeline_tests.servers.files import File, FileServer

CSV = "id,email,name,updated_at\n" + "".join(f"{n},p{n}@nordwind-demo.com,Person {n},2026-03-0{n}T10:00:00Z\n" for n in range(1, 6))
HUBSPOT_TOKEN = "pat-canary-hubspot-0f7c2a"
"""A secret: it must show nowhere but in what is sent to the vendor."""


@dataclass
class Served:
    """A server at ``base``; ``link`` signs an operator in, once. ``files`` is what it can read from."""

    base: str
    link: str
    url: str
    folder: Path
    files: FileServer
    hubspot_url: str
    key: str
    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def client(self, token: str | None = None) -> httpx.Client:
        """A program with a token, by default the installation's key."""
        return httpx.Client(base_url=self.base, headers={"Authorization": f"Bearer {token or self.key}"}, timeout=60)

    def csv(self, name: str, **more: Any) -> dict[str, Any]:
        """A declaration of the CSV file."""
        return {"name": name, "source_type": "csv_url", "config": {"url": f"{self.files.url}/people.csv"}} | more

    def awaited(self, client: httpx.Client, name: str, run_id: str, seconds: float = 90) -> dict[str, Any]:
        """A run that has ended."""
        deadline = time.monotonic() + seconds
        while True:
            run = client.get(f"/api/v1/sources/{name}/runs/{run_id}").raise_for_status().json()
            if run["done"]:
                return run
            assert time.monotonic() < deadline, run
            time.sleep(0.3)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


Serving = Callable[..., AbstractContextManager[Served]]


@pytest.fixture(scope="module")
def serve_another(_server: str, _migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    """A server on a port, of a new project with nothing declared and an identity database of its own; with options and variables."""

    @contextmanager
    def made(port: int, *options: str, **environment: str) -> Iterator[Served]:
        name = f"web_{uuid.uuid4().hex[:12]}"
        with _administer(_server) as connection:
            _create(connection, name, _migrated)
        with serving(_named(_server, name), tmp_path_factory.mktemp("web"), port, *options, **environment) as server:
            yield server
        with _administer(_server) as connection:
            connection.execute(psycopg.sql.SQL("drop database {} with (force)").format(psycopg.sql.Identifier(name)))

    return made


@pytest.fixture(scope="module")
def served(serve_another: Serving) -> Iterator[Served]:
    """A server, with its daemon."""
    with serve_another(free_port()) as made:
        yield made


@contextmanager
def serving(url: str, place: Path, port: int, *options: str, **environment: str) -> Iterator[Served]:
    """The server, of a new project in ``place``."""
    init.callback(place / "project")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("IDENTITY_", "DAGSTER_"))} | {
        "IDENTITY_DATABASE_URL": url,
        "IDENTITY_HOME": str(place / "home"),
        "IDENTITY_ALLOW_PRIVATE_HOSTS": "127.0.0.1",
        **environment,
    }
    vendor_port = free_port()
    with FileServer(None) as files, hubspot_api.serve(demo_contacts(), HUBSPOT_TOKEN, vendor_port):
        files.files["/people.csv"] = File(CSV.encode())
        with (place / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", "from identity_pipeline.cli import main; main()", "serve", "--port", str(port), *options],
                cwd=place / "project", env=variables, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            link = _link(process, place / "server.log")
            key = (place / "home" / "web.key").read_text().strip()
            yield Served(f"http://127.0.0.1:{port}", link, url, place, files, f"http://127.0.0.1:{vendor_port}", key, process)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise


def _link(process: subprocess.Popen, log: Path) -> str:
    deadline = time.monotonic() + 150
    while not (found := re.search(r"open (http://\S+/login\?once=\S+)", log.read_text("utf-8", "replace"))):
        assert process.poll() is None, log.read_text("utf-8", "replace")
        assert time.monotonic() < deadline, log.read_text("utf-8", "replace")
        time.sleep(0.2)
    return found[1]
