"""`python -m benchmarks.api`: what reading an API's pages costs, beside a loop that asks for the same pages and parses them.

The vendors are the servers of the conformance suite, each in a process of its own; what is measured is
the CPU of the process that reads. A vendor's own waits are left out.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROWS = 10_000


def serve(source_type: str, rows: int) -> None:
    """Serve so many contacts; say on standard output how to reach them; end with standard input."""
    import pytest

    from identity_pipeline_tests.conformance.harness import Tools, contacts, harness_classes

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
        harness = harness_classes()[source_type](Tools("", None, patch, stack=stack))
        harness.show(contacts(rows))
        print(json.dumps({"config": harness.config, "environment": harness.environment}), flush=True)
        sys.stdin.read()


def read(source_type: str, reached: dict[str, Any], log: Path) -> None:
    """Read and land everything through the connector; keep what was asked for in ``log``."""
    import requests

    from identity_pipeline.core.settings import COLLECT_AFTER
    from identity_pipeline.core.text import cast_all_utf8
    from identity_pipeline.core.window import ReadContext, Window
    from identity_pipeline.declarations.opened import opened
    from identity_pipeline.declarations.source import Source
    from identity_pipeline.store.landing import Landing

    gc.set_threshold(COLLECT_AFTER)  # as in a run
    asked: list[Any] = []
    request = requests.Session.request

    def noting(self: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
        body = options.get("data")
        asked.append((method, url, dict(options["headers"]), body and body.decode()))
        return request(self, method, url, **options)

    requests.Session.request = noting  # type: ignore[method-assign]
    source = Source.model_validate({"name": "bench", "source_type": source_type, "config": reached["config"]})
    connector = opened(source, lambda: "").connector
    with tempfile.TemporaryDirectory() as folder:
        landing, rows = Landing(folder), 0
        window = Window(context=ReadContext(sleep=lambda _: None, log=lambda _: None))
        began = time.process_time()
        with landing.writer("bench", 1) as writer:
            for batch in connector.read(window):
                table = cast_all_utf8(batch)
                rows += table.num_rows
                writer.write(table)
        spent = time.process_time() - began
    log.write_text(json.dumps(asked))
    print(json.dumps({"cpu": spent, "rows": rows, "requests": len(asked)}))


def bare(log: Path) -> None:
    """Ask for the same pages and parse them."""
    import requests

    from identity_pipeline.core.settings import COLLECT_AFTER

    asked = json.loads(log.read_text())
    gc.set_threshold(COLLECT_AFTER)
    session = requests.Session()
    began = time.process_time()
    for method, url, headers, body in asked:
        json.loads(session.request(method, url, headers=headers, data=body).content)
    print(json.dumps({"cpu": time.process_time() - began}))


def main() -> None:
    """Measure all API-key vendors that are there."""
    from identity_pipeline.connectors import connector
    from identity_pipeline_tests.conformance.harness import harness_classes

    names = [name for name in sorted(harness_classes()) if connector(name).group == "api"]
    print(f"{ROWS:,} records of some ten fields each\n")
    print("| source type | requests | CPU s | bare loop, CPU s | ratio (aim <= 2) |\n|---|---|---|---|---|")
    for name in names:
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.api", "serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        reached = json.loads(server.stdout.readline())
        environment = {**os.environ, **reached["environment"], "IDENTITY_ALLOW_PRIVATE_HOSTS": "127.0.0.1"}
        with tempfile.NamedTemporaryFile(suffix=".json") as log:

            def spent(*arguments: str, log: str = log.name, environment: dict[str, str] = environment) -> dict[str, Any]:
                command = [sys.executable, "-m", "benchmarks.api", *arguments, log]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(done.stderr[-3000:])
                return json.loads(done.stdout.splitlines()[-1])

            ours = min((spent("read", name, json.dumps(reached)) for _ in range(2)), key=lambda found: found["cpu"])
            theirs = min(spent("bare")["cpu"] for _ in range(2))
        server.stdin.close()
        server.wait()
        print(f"| `{name}` | {ours['requests']} | {ours['cpu']:.2f} | {theirs:.2f} | {ours['cpu'] / theirs:.2f} |", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", name]:
            serve(name, ROWS)
        case ["read", name, reached, log]:
            read(name, json.loads(reached), Path(log))
        case ["bare", log]:
            bare(Path(log))
        case _:
            main()
