"""The environment of a command: a fresh database, an empty sources folder, a source on the same server."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from identity_pipeline.demo import hubspot_api
from identity_pipeline.demo.hubspot_contacts import demo_contacts

TOKEN = "canary-token-8f2c61"


@pytest.fixture
def sources(identity_env: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources folder, empty."""
    folder = tmp_path / "sources"
    folder.mkdir()
    monkeypatch.setenv("IDENTITY_SOURCES", str(folder))
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    return folder


@pytest.fixture
def crm(sources: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """A database with contacts in ``public.crm``; CRM_DSN is its address."""
    monkeypatch.setenv("CRM_DSN", make_conninfo(database_url, sslmode="disable"))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("create table public.crm (id text, email text, phone text, name text, nick text, updated_at timestamptz)")
        connection.execute(
            """
            insert into public.crm values
                ('1', 'Ada@Kestrel-Demo.com ', '+44 20 7946 0018', 'Ada Lovelace', 'ada', '2026-04-01T10:00Z'),
                ('2', 'info@kestrel-demo.com', null, 'Front Desk', null, '2026-04-02T10:00Z'),
                (null, 'nobody@example.org', null, 'Without Id', null, '2026-04-03T10:00Z')
            """
        )
        yield connection


@pytest.fixture
def hubspot(sources: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hubspot_api.HubSpotAPI]:
    """A HubSpot-shaped API, declared as the source ``portal``; HUB_TOKEN is what it accepts."""
    monkeypatch.setenv("HUB_TOKEN", TOKEN)
    with hubspot_api.serve(demo_contacts(30), TOKEN) as api:
        (sources / "portal.yaml").write_text(
            f"sources:\n  - name: portal\n    source_type: hubspot_contacts\n    cursor_column: lastmodifieddate\n"
            f"    config:\n      access_token: {{env: HUB_TOKEN}}\n      base_url: {api.url}\n"
        )
        yield api
