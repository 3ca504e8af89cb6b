"""`make drop`: a file is put into a bucket, the sensor sees it and starts a load, its rows appear."""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from identity_pipeline.cli import services
from identity_pipeline.core import settings
from identity_pipeline.core.errors import TryLater
from identity_pipeline.demo.bucket_api import BucketAPI
from identity_pipeline.demo.people import newsletter_csv, people
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline.demo.world import is_free
from identity_pipeline.store import listing

SOURCE = "demo_bucket"
_PEOPLE = 5
_WITHIN = 150.0
"""Seconds until the load has ended: the sensor looks every 60, a daemon may take as long to come up."""


def drop(say: Callable[[str], None]) -> dict[str, Any]:
    """Put a file into the bucket, and the row of the load that read it.

    Raises:
        TryLater: no load began, or it failed.
    """
    os.environ["IDENTITY_SOURCES"] = str(Path(__file__).parent / "drop_sources")
    url = services.database(say)
    services.project()
    before = next((load["load_id"] for load in listing.loads(url, SOURCE, limit=1)), 0)
    with _bucket() as folder, services.daemon(say) as keep_daemon:
        name = _put(folder)
        say(f"{name} is put into the bucket; the sensor {SOURCE}_drops looks every minute")
        until = time.monotonic() + _WITHIN
        while time.monotonic() < until:
            keep_daemon()
            for load in listing.loads(url, SOURCE, limit=1):
                if load["load_id"] > before and load["status"] == "committed" and load["records_read"]:
                    return load
                if load["load_id"] > before and load["status"] == "failed":
                    raise TryLater(f"load {load['load_id']} failed: {load['error']}")
            time.sleep(0.5)
    raise TryLater(
        f"no load of {SOURCE} within {_WITHIN:g} s. A daemon of `make dev`, or of your own, knows other sources: end it, and run it again"
    )


@contextmanager
def _bucket() -> Iterator[Path]:
    """The bucket, at the same address as before if that is free, so that files that were read are known again."""
    kept, folder = settings.home() / "demo_bucket.json", settings.home() / "demo_bucket"
    folder.mkdir(parents=True, exist_ok=True)
    port = json.loads(kept.read_text())["port"] if kept.exists() else 0
    with serve(BucketAPI(folder=folder), port if port and is_free(port) else 0) as api:
        kept.write_text(json.dumps({"port": int(api.url.rpartition(":")[2])}))
        hosts = [part for part in os.environ.get("IDENTITY_ALLOW_PRIVATE_HOSTS", "").split(",") if part]
        os.environ |= {
            "DEMO_BUCKET_URL": api.url,
            "DEMO_BUCKET_SECRET": secrets.token_urlsafe(24),
            "IDENTITY_ALLOW_PRIVATE_HOSTS": ",".join(dict.fromkeys((*hosts, "127.0.0.1"))),
        }
        yield folder


def _put(folder: Path) -> str:
    """A new file of five people that no file before it had, whole from the moment that it is there."""
    everyone, number = people(), len(list(folder.iterdir()))
    start = number * _PEOPLE % len(everyone)
    name = f"export-{datetime.now(UTC):%Y%m%d-%H%M%S}-{number}.csv"
    half = folder.parent / "demo_bucket.part"
    half.write_bytes(newsletter_csv(everyone[start : start + _PEOPLE]))
    half.replace(folder / name)
    return name
