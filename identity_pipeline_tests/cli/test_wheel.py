"""The wheel alone is enough: built, installed into an empty environment, used from below a project's folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import uv

from identity_pipeline import __version__
from identity_pipeline.core import settings
from identity_pipeline_tests.servers.files import File, FileServer

CLONE = settings.PACKAGE.parent
_OURS = ("IDENTITY_", "DAGSTER_", "PYTHON", "VIRTUAL_ENV")


def _uv(*arguments: str | Path) -> None:
    # In the versions of the lock file, which whoever runs the tests has downloaded already.
    done = subprocess.run([uv.find_uv_bin(), "-q", *arguments], cwd=CLONE, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`identity-pipeline` of an environment that holds the wheel and what it asks for, and nothing else."""
    place = tmp_path_factory.mktemp("wheel")
    _uv("build", "--wheel", "--out-dir", place)
    _uv("export", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes", "-o", place / "locked.txt")
    _uv("venv", "--python", sys.executable, place / "venv")
    [wheel] = place.glob("*.whl")
    _uv("pip", "install", "--python", place / "venv", "--constraints", place / "locked.txt", wheel)
    return place / "venv" / "bin" / "identity-pipeline"


def test_a_project_that_the_wheel_made_loads_a_source(program: Path, tmp_path: Path, database_url: str):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    environment |= {"IDENTITY_DATABASE_URL": database_url, "IDENTITY_ALLOW_PRIVATE_HOSTS": "127.0.0.1"}

    def run(folder: Path, *arguments: str) -> str:
        done = subprocess.run([program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    assert __version__ in run(tmp_path, "--version")
    run(tmp_path, "init", "contacts")
    project, below = tmp_path / "contacts", tmp_path / "contacts" / "sources" / "eu"
    below.mkdir()
    with FileServer(None) as server:
        server.files["/people.csv"] = File(b"id,email\n1,ann@acme.eu\n2,bob@acme.eu\n")
        declared = f"sources:\n  - name: people\n    source_type: csv_url\n    config: {{url: '{server.url}/people.csv'}}\n"
        (project / "sources" / "people.yaml").write_text(declared)
        assert [row["declared"] for row in json.loads(run(below, "sources", "validate", "--json"))] == ["ok"]
        [load] = json.loads(run(below, "ingest", "people", "--json"))
    assert (load["status"], load["inserted"]) == ("committed", 2)
    assert (project / ".identity").is_dir()
