"""`python -m benchmarks.files`: what reading files out of a bucket costs, beside the least that can be done with the same files.

A large file: read, parsed and landed from S3 (SeaweedFS), beside Arrow's own CSV reader on the local file. Many small ones: beside a loop
that asks for one after the other and parses them. A list of objects none of which has changed: beside boto3's own list. Each reading is a
process of its own; memory is that process's own peak.
"""

import argparse
import csv
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.sql import OUT, _report

SMALL, LARGE, MANY, LISTED = 1_000_000, 5_000_000, 10_000, 100_000
CELLS = 10
"""Rows of a small file."""


def _connector(url: str, prefix: str) -> Any:
    from identity_pipeline.declarations.opened import opened
    from identity_pipeline.declarations.source import Source
    from identity_pipeline_tests.servers import seaweedfs

    key, os.environ["BENCH_SECRET"] = seaweedfs.ADMINISTRATOR
    config = {
        "bucket": seaweedfs.BUCKET,
        "prefix": prefix,
        "endpoint_url": url,
        "access_key_id": key,
        "secret_access_key": {"env": "BENCH_SECRET"},
        "max_bytes": 2_000_000_000,
    }
    return opened(Source.model_validate({"name": "bench", "source_type": "s3_csv", "config": config}), lambda: "").connector


def load(url: str, prefix: str) -> None:
    """Read and land all files."""
    from identity_pipeline.core.settings import COLLECT_AFTER
    from identity_pipeline.core.text import cast_all_utf8
    from identity_pipeline.core.window import ReadContext, Window
    from identity_pipeline.store.landing import Landing

    gc.set_threshold(COLLECT_AFTER)  # as in a run
    connector, rows = _connector(url, prefix), 0
    connector.unread(Window(limit=1, context=ReadContext(log=lambda _: None)))  # what is imported then is not measured
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        began = time.monotonic(), time.process_time()
        with Landing(folder).writer("bench", 1) as writer:
            for batch in connector.read(Window(context=ReadContext(log=lambda _: None))):
                table = cast_all_utf8(batch)
                rows += table.num_rows
                writer.write(table)
        _report(rows, began)


def arrow(path: str) -> None:
    """Parse a local file as text, in blocks of 16 MB."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    began = time.monotonic(), time.process_time()
    options = arrow_csv.ConvertOptions(column_types=dict.fromkeys(data.COLUMNS, pa.string()))
    reader = arrow_csv.open_csv(
        path, arrow_csv.ReadOptions(block_size=16 * 2**20), arrow_csv.ParseOptions(newlines_in_values=True), options
    )
    _report(sum(batch.num_rows for batch in reader), began)


def loop(url: str, prefix: str) -> None:
    """Ask for one object after the other, and parse it."""
    import requests

    asked = _addresses(url, prefix, "get_object")
    began, rows, session = (time.monotonic(), time.process_time()), 0, requests.Session()
    for address in asked:
        rows += sum(1 for _ in csv.reader(session.get(address).text.splitlines())) - 1
    _report(rows, began)


def unchanged(url: str, prefix: str) -> None:
    """Find out that no object has changed."""
    from identity_pipeline.core.file_version import FileVersion
    from identity_pipeline.core.window import ReadContext, Window

    connector = _connector(url, prefix)
    context, rules = ReadContext(log=lambda _: None), connector.reading().fingerprint
    found = connector.unread(Window(context=context))
    known = {entry.name: FileVersion(entry.version, entry.size, entry.modified, "0", rules) for entry in found}
    began = time.monotonic(), time.process_time()
    left = connector.unread(Window(files=known, by_mark=True, context=context))
    if left:
        sys.exit("something has changed")
    _report(len(known), began)


def bare(url: str, prefix: str) -> None:
    """List the objects by boto3."""
    client, bucket = _client(url)
    began = time.monotonic(), time.process_time()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    _report(sum(len(page["Contents"]) for page in pages), began)


def _client(url: str) -> tuple[Any, str]:
    from identity_pipeline_tests.servers import seaweedfs

    return seaweedfs.Server(url, Path()).client(), seaweedfs.BUCKET


def _addresses(url: str, prefix: str, operation: str) -> list[str]:
    """Signed addresses of the objects that there are."""
    client, bucket = _client(url)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    names = [found["Key"] for page in pages for found in page["Contents"]]
    return [client.generate_presigned_url(operation, {"Bucket": bucket, "Key": name}, 3600) for name in names]


def _fill(url: str, prefix: str, count: int) -> None:
    """Small objects of ten rows."""
    client, bucket = _client(url)

    def put(number: int) -> None:
        rows = "".join(f"{number * CELLS + i},p{number * CELLS + i}@example.com,Ann Lee,2026-01-01T00:00:{i:02}Z\n" for i in range(CELLS))
        client.put_object(Bucket=bucket, Key=f"{prefix}{number:06}.csv", Body=f"id,email,name,updated_at\n{rows}".encode())

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, range(count)))


def _spent(times: int, *arguments: str) -> dict[str, Any]:
    """The best of some runs by CPU of the reader."""
    runs = []
    for _ in range(times):
        command = [sys.executable, "-m", "benchmarks.files", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)}: {done.stderr[-3000:]}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return min(runs, key=lambda run: run["cpu"])


def _show(name: str, ours: dict[str, Any], theirs: dict[str, Any], floor: str, aim: str) -> None:
    for what, run in ((name, ours), (floor, theirs)):
        a_second = run["rows"] / run["wall"]
        print(f"| {what} | {run['rows']:,} | {run['cpu']:.2f} | {run['wall']:.2f} | {a_second:,.0f} | {run['peak_mb']:.0f} |")
    ratios = f"{theirs['cpu'] / ours['cpu']:.2f} | {theirs['wall'] / ours['wall']:.2f}"
    print(f"| speed by that, {aim} | | {ratios} | | |", flush=True)


def main() -> None:
    """Measure all three."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="*", default=[SMALL, LARGE])
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--listed", type=int, default=LISTED)
    chosen = parser.parse_args()
    from identity_pipeline_tests.servers import seaweedfs

    OUT.mkdir(exist_ok=True)
    os.environ["IDENTITY_ALLOW_PRIVATE_HOSTS"] = "127.0.0.1"
    with tempfile.TemporaryDirectory(dir=OUT) as place:
        os.environ |= {"IDENTITY_TESTS_PLACE": place, "TMPDIR": place}
        server = seaweedfs.server()
        print(f"load average of the last minute: {os.getloadavg()[0]:.1f}, cores: {os.cpu_count()}\n")
        print("| files of a bucket | rows | CPU of the reader, s | wall, s | a second | peak memory, MB |\n|---|---|---|---|---|---|")
        for rows in chosen.rows:
            path = Path(place) / f"{rows}.csv"
            data.write(path, rows)
            server.client().upload_file(str(path), seaweedfs.BUCKET, f"large-{rows}/a.csv")
            theirs = _spent(2, "arrow", str(path))
            _show("one file, landed", _spent(2, "load", server.url, f"large-{rows}/"), theirs, "Arrow on the local file", "aim >= 0.7")
            path.unlink()
        for count, prefix in ((chosen.many, "many/"), (chosen.listed, "listed/")):
            _fill(server.url, prefix, count)
        if chosen.many:
            ours, theirs = _spent(2, "load", server.url, "many/"), _spent(2, "loop", server.url, "many/")
            _show(f"{chosen.many:,} files of {CELLS} rows, landed", ours, theirs, "a bare loop", "")
            print(f"| files a second, aim >= 200 | | | | {chosen.many / ours['wall']:,.0f} | |")
        if chosen.listed:
            ours, theirs = _spent(2, "unchanged", server.url, "listed/"), _spent(2, "bare", server.url, "listed/")
            _show("objects listed, none changed", ours, theirs, "boto3's list", "aim >= 0.5")
        print(f"\nload average at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["load", url, prefix]:
            load(url, prefix)
        case ["arrow", path]:
            arrow(path)
        case ["loop", url, prefix]:
            loop(url, prefix)
        case ["unchanged", url, prefix]:
            unchanged(url, prefix)
        case ["bare", url, prefix]:
            bare(url, prefix)
        case _:
            main()
