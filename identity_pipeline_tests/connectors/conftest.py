"""What tests of connectors share."""

from pathlib import Path

import pytest

from identity_pipeline.loading.spec import Target
from identity_pipeline.store.landing import Landing


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this machine may be asked."""
    for bundle in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):  # this machine's own authorities are not tested, and slow to read
        monkeypatch.delenv(bundle, raising=False)
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")


@pytest.fixture
def target(database_url: str, tmp_path: Path) -> Target:
    """An empty store."""
    return Target(database_url, Landing(str(tmp_path / "landing")))
