"""The demo's world: three sources on this machine, and the environment that points at them."""

import http.server
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psycopg

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


@contextmanager
def _csv_server(body: bytes) -> Iterator[str]:
    handler = type("Newsletter", (_File,), {"body": body})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/newsletter.csv"
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
    token = secrets.token_urlsafe(24)
    with (
        _csv_server(newsletter_csv(everyone[:1_000])) as csv_url,
        hubspot_api.serve(demo_contacts(), token) as hubspot,
    ):
        hosts = [part for part in os.environ.get("IDENTITY_ALLOW_PRIVATE_HOSTS", "").split(",") if part]
        shop = urlsplit(database_url)
        yield {
            "DEMO_CSV_URL": csv_url,
            "DEMO_SHOP_URL": shop._replace(query="sslmode=disable").geturl(),
            "DEMO_HUBSPOT_URL": hubspot.url,
            "DEMO_HUBSPOT_TOKEN": token,
            "IDENTITY_ALLOW_PRIVATE_HOSTS": ",".join(dict.fromkeys((*hosts, "127.0.0.1", shop.hostname or "127.0.0.1"))),
        }
