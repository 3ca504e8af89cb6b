"""What tests of connectors share."""

import pytest


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this machine may be asked."""
    for bundle in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):  # this machine's own authorities are not tested, and slow to read
        monkeypatch.delenv(bundle, raising=False)
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
