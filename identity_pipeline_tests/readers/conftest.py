"""What the tests of HTTP and of files share: an https server on loopback that we trust."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from identity_pipeline_tests.servers.files import Authority, FileServer


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that we trust; loopback is let through."""
    made = Authority(tmp_path)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.bundle))
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1,localhost")
    return made


@pytest.fixture
def server(authority: Authority) -> Iterator[FileServer]:
    with FileServer(authority) as server:
        server.put("/file", b"content")
        yield server
