"""The demo's world: three sources on this machine, and the environment that points at them."""

import http.server
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
import requests

from identity_pipeline.core import settings
from identity_pipeline.demo import hubspot_api
from identity_pipeline.demo.hubspot_contacts import demo_contacts
from identity_pipeline.demo.people import customers, newsletter_csv, people

_TABLE = """
create schema if not exists demo;
create table if not exists demo.customers (
    id bigint primary key, full_name text, email text, mobile text, city text, country_code text,
    created_at timestamptz not null, updated_at timestamptz not null
);
create index if not exists customers_updated_at on demo.customers (updated_at)
"""


class _File(http.server.BaseHTTPRequestHandler):
    body = b""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path != "/newsletter.csv":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/csv; charset=utf-8")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
        """Stay silent."""


@dataclass(frozen=True)
class _Place:
    """Where the services stand. Kept, so that a daemon of an earlier demo still finds them."""

    csv_port: int
    hubspot_port: int
    token: str

    @property
    def csv_url(self) -> str:
        return f"http://127.0.0.1:{self.csv_port}/newsletter.csv"

    @property
    def hubspot_url(self) -> str:
        return f"http://127.0.0.1:{self.hubspot_port}"

    def alive(self) -> bool:
        """True if another demo or `make dev` serves there."""
        try:
            return requests.get(self.csv_url, timeout=2).ok
        except requests.RequestException:
            return False


def _place() -> _Place:
    path = settings.home() / "demo.json"
    if path.exists():
        place = _Place(**json.loads(path.read_text()))
        if place.alive() or (is_free(place.csv_port) and is_free(place.hubspot_port)):
            return place
    place = _Place(_any_port(), _any_port(), secrets.token_urlsafe(24))
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(place)))
    return place


def _any_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def is_free(port: int) -> bool:
    """True if nobody listens on this port of 127.0.0.1."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@contextmanager
def _csv_server(body: bytes, port: int) -> Iterator[None]:
    handler = type("Newsletter", (_File,), {"body": body})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _fill_shop(url: str, rows: list[tuple[object, ...]]) -> None:
    with psycopg.connect(url) as connection, connection.cursor() as cur:
        cur.execute(_TABLE)
        if cur.execute("select count(*) from demo.customers").fetchone() != (len(rows),):
            cur.execute("truncate demo.customers")
            with cur.copy("copy demo.customers from stdin") as copy:
                for row in rows:
                    copy.write_row(row)


@contextmanager
def world(database_url: str) -> Iterator[dict[str, str]]:
    """Run the three sources while the body runs; yields the environment that the bundled declarations name."""
    everyone = people()
    _fill_shop(database_url, customers(everyone[400:1_200]))
    place = _place()
    hosts = [part for part in os.environ.get("IDENTITY_ALLOW_PRIVATE_HOSTS", "").split(",") if part]
    shop = urlsplit(database_url)
    environment = {
        "DEMO_CSV_URL": place.csv_url,
        "DEMO_SHOP_URL": shop._replace(query="sslmode=disable").geturl(),
        "DEMO_HUBSPOT_URL": place.hubspot_url,
        "DEMO_HUBSPOT_TOKEN": place.token,
        "IDENTITY_ALLOW_PRIVATE_HOSTS": ",".join(dict.fromkeys((*hosts, "127.0.0.1", shop.hostname or "127.0.0.1"))),
    }
    with ExitStack() as services:
        if not place.alive():
            services.enter_context(_csv_server(newsletter_csv(everyone[:1_000]), place.csv_port))
            services.enter_context(hubspot_api.serve(demo_contacts(), place.token, place.hubspot_port))
        yield environment
