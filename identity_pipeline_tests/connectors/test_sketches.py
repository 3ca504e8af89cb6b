"""The connectors that CONTRIBUTING.md shows are whole: each is run as it stands there."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from urllib.parse import parse_qs, urlsplit

import psycopg
import pyarrow as pa
import pytest

from identity_pipeline.core.settings import PACKAGE
from identity_pipeline.normalise import canonicalise
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import secret

GUIDE = (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8")
SKETCHES = dict(re.findall(r"<!-- sketch: (\w+) -->\n```python\n(.*?)```\n", GUIDE, re.DOTALL))


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")


@pytest.fixture
def module(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModuleType]:
    """One sketch as the module that its author would write."""
    family = request.param
    path = tmp_path / f"{family}_sketch.py"
    path.write_text(SKETCHES[family], "utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = made
    spec.loader.exec_module(made)
    yield made
    del sys.modules[path.stem]


@pytest.mark.parametrize("family", ["rest", "files", "sql"])
def test_a_sketch_fits_on_a_screen_and_is_formatted_as_connectors_are(family: str, tmp_path: Path):
    assert len(SKETCHES[family].splitlines()) <= 60
    path = tmp_path / "sketch.py"
    path.write_text(SKETCHES[family], "utf-8")
    ruff = [sys.executable, "-m", "ruff", "format", "--check", "--line-length", "100", "--isolated", str(path)]
    done = subprocess.run(ruff, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


PEOPLE = [{"id": n, "email": f"p{n}@lee-family.net", "updated": 1_776_067_200 + n, "state": "live"} for n in range(1, 6)]


class Acme(BaseHTTPRequestHandler):
    """The API of the sketch: pages of two, a filter that leaves out what equals it."""

    asked: list[dict[str, list[str]]]

    def do_GET(self) -> None:
        """One page."""
        query = parse_qs(urlsplit(self.path).query)
        self.asked.append(query)
        start, after = int(query.get("cursor", ["0"])[0]), int(query.get("updated_after", ["0"])[0])
        found = [person for person in PEOPLE if person["updated"] > after]
        body = json.dumps({"people": found[start : start + 2], "next": str(start + 2) if start + 2 < len(found) else None}).encode()
        self.send_response(200 if self.headers["Authorization"] == "Bearer abc" else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("module", ["rest"], indirect=True)
def test_a_paged_bearer_api_with_an_exclusive_filter_and_epoch_seconds_is_one_file(module: ModuleType):
    Acme.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Acme) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        people = module.AcmePeople(token=secret("abc"), base_url=f"http://127.0.0.1:{server.server_port}")
        first = reading.window(people, "updated")
        found, counts = reading.read(people, first)
        assert found["id"].tolist() == ["1", "2", "3", "4", "5"]
        assert first.cursor is not None
        assert counts.mark(first.cursor) == "2026-04-13T08:00:05Z"
        found, counts = reading.read(people, reading.window(people, "updated", "2026-04-13T08:00:04Z"))
        assert (found["id"].tolist(), counts.filtered) == (["4", "5"], 0), "the tie at the mark is asked for"
        assert Acme.asked[-1]["updated_after"] == ["1776067203"]
        assert [step.ok for step in people.check()] == [True] * 4
        server.shutdown()


@pytest.mark.parametrize("module", ["files"], indirect=True)
def test_a_folder_of_files_is_one_file_and_an_unchanged_one_is_not_read_again(module: ModuleType, tmp_path: Path):
    (tmp_path / "a.csv").write_text("id,email\n1,a@lee-family.net\n")
    (tmp_path / "b.csv").write_text("id,email\n2,b@lee-family.net\n")
    folder = module.FolderCsv(path=str(tmp_path))
    first = reading.window(folder)
    assert reading.read(folder, first)[0]["id"].tolist() == ["1", "2"]
    (tmp_path / "b.csv").write_text("id,email\n2,b@lee-family.net\n3,c@lee-family.net\n")
    assert reading.read(folder, reading.window(folder, files=first.context.files))[0]["id"].tolist() == ["2", "3"]
    assert [step.ok for step in folder.check()] == [True] * 4


@pytest.mark.parametrize("module", ["sql"], indirect=True)
def test_a_table_of_another_database_is_one_file(module: ModuleType, postgres_url: str):
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create table people (id int primary key, email text, updated_at timestamptz)")
        connection.execute("insert into people values (1, 'a@lee-family.net', '2026-01-01Z'), (2, 'b@lee-family.net', '2026-01-02Z')")
    table = module.CockroachTable(connection_string=secret(f"{postgres_url}?sslmode=disable"), table="people")
    found, counts = reading.read(table, reading.window(table, "updated_at", "2026-01-02T00:00:00Z"))
    assert (found["id"].tolist(), counts.filtered) == (["2"], 0)
    assert [step.ok for step in table.check()] == [True] * 4


@pytest.mark.parametrize("module", ["rest"], indirect=True)
def test_what_a_sketch_maps_becomes_canonical(module: ModuleType):
    raw = pa.table({"id": ["1"], "email": ["A@Lee-Family.net"], "updated": ["1776067200"], "state": ["deleted"]})
    [row] = canonicalise(raw, module.AcmePeople.field_map).to_pylist()
    assert (row["email"], row["deleted"]) == ("a@lee-family.net", True)
    assert row["source_updated_at"] == datetime(2026, 4, 13, 8, tzinfo=UTC)
