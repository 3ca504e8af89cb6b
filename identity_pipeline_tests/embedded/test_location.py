"""Which database the pipeline uses."""

from pathlib import Path

import pytest

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.embedded.cluster import Cluster, write
from identity_pipeline.embedded.location import database_url, plain_url


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("IDENTITY_DATABASE_URL", raising=False)
    monkeypatch.setenv("IDENTITY_HOME", str(tmp_path))
    return tmp_path


def test_without_a_database_the_message_names_both_ways_to_get_one():
    with pytest.raises(ConfigurationError, match=r"`identity-pipeline db start`, or set IDENTITY_DATABASE_URL"):
        database_url()


def test_the_environment_comes_before_the_embedded_server(home: Path, monkeypatch: pytest.MonkeyPatch):
    write(home, Cluster(home / "postgres", 54399, "p", "identity_0", ready=True))
    assert plain_url() == "postgresql://identity:p@127.0.0.1:54399/identity"
    monkeypatch.setenv("IDENTITY_DATABASE_URL", "postgresql+psycopg://u:p@db.example/identity")
    assert database_url() == "postgresql://u:p@db.example/identity"


def test_a_server_that_was_never_up_has_no_url(home: Path):
    write(home, Cluster(home / "postgres", 0, "p", "identity_0"))
    with pytest.raises(ConfigurationError, match="db start"):
        database_url()
