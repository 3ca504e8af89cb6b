"""`python -m benchmarks.sql`: what reading a table costs, beside the fastest way out of the same database.

For PostgreSQL that is a bare ``COPY … TO STDOUT`` parsed into Arrow, for MySQL a bare cursor whose rows are only counted: of PyMySQL,
and of mysqlclient where that can be installed. Each reading is a process of its own; memory is that process's own peak.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.measure import postmaster_pid, server_cpu

OUT = Path(__file__).parent / "out"
TYPES = {"id": "bigint", "created_at": "timestamptz", "updated_at": "timestamptz", "balance": "numeric(12,2)", "score": "int"}
SMALL, LARGE = 200_000, 1_000_000
RATE = 10_000_000
"""Bytes a second of a connection over a long line."""


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _report(rows: int, began: tuple[float, float]) -> None:
    wall, cpu = time.monotonic() - began[0], time.process_time() - began[1]
    print(json.dumps({"rows": rows, "wall": wall, "cpu": cpu, "peak_mb": _peak_mb()}))


def ours(source_type: str, config: dict[str, Any]) -> None:
    """Read a table through the connector."""
    from identity_pipeline.core.settings import COLLECT_AFTER
    from identity_pipeline.core.window import Window
    from identity_pipeline.declarations.opened import opened
    from identity_pipeline.declarations.source import Source

    gc.set_threshold(COLLECT_AFTER)  # as in a run
    connector = opened(Source.model_validate({"name": "bench", "source_type": source_type, "config": config}), lambda: "").connector
    began = time.monotonic(), time.process_time()
    _report(sum(batch.num_rows for batch in connector.read(Window())), began)


def copy(url: str, table: str) -> None:
    """Read a table by one bare COPY into Arrow, in blocks of 16 MB."""
    import psycopg
    import pyarrow as pa
    from pyarrow import csv

    began, rows, block = (time.monotonic(), time.process_time()), 0, bytearray()

    def parsed() -> int:
        options = csv.ReadOptions(autogenerate_column_names=True, block_size=len(block) + 1)
        return csv.read_csv(pa.BufferReader(pa.py_buffer(block)), options, csv.ParseOptions(newlines_in_values=True)).num_rows

    statement = f"COPY {table} TO STDOUT (FORMAT csv)".encode()
    with psycopg.connect(url) as connection, connection.cursor() as reading, reading.copy(statement) as out:
        while piece := out.read():
            block += piece
            if len(block) >= 16 * 2**20:
                rows, block = rows + parsed(), bytearray()
    _report(rows + (parsed() if block else 0), began)


def cursor(driver: str, port: str, password: str, authority: str, table: str) -> None:
    """Read a table by a bare cursor that holds no result, of mysqlclient or PyMySQL."""
    chosen = {
        "host": "127.0.0.1",
        "port": int(port),
        "user": "administrator",
        "password": password,
        "database": "crm",
        "charset": "utf8mb4",
    }
    if driver == "mysqlclient":
        from MySQLdb import connect
        from MySQLdb.cursors import SSCursor
    else:
        from pymysql import connect
        from pymysql.cursors import SSCursor
    began, rows = (time.monotonic(), time.process_time()), 0
    connection = connect(**chosen, ssl={"ca": authority})
    reading = connection.cursor(SSCursor)
    reading.execute(f"SELECT * FROM {table}")
    while found := reading.fetchmany(10_000):
        rows += len(found)
    _report(rows, began)


def _spent(
    commands: dict[str, list[str]], server: int, environment: dict[str, str], *, by: str = "all", rounds: int = 5
) -> dict[str, dict[str, Any]]:
    """Of each command the best of its runs, by CPU of client and server. They take turns: a busy moment hits all of them."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for name, command in commands.items():
            before = server_cpu(server)
            done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{' '.join(command[:5])}: {done.stderr[-3000:]}")
            time.sleep(0.3)  # a backend that has just ended is counted once it is reaped
            found = json.loads(done.stdout.splitlines()[-1])
            run = found | {"all": found["cpu"] + server_cpu(server) - before}
            best[name] = min(best.get(name, run), run, key=lambda run: run[by])
    return best


def _rows(best: dict[str, dict[str, Any]]) -> None:
    for what, run in best.items():
        print(f"| {what} | {run['rows']:,} | {run['cpu']:.2f} | {run['all']:.2f} | {run['wall']:.2f} | {run['peak_mb']:.0f} |", flush=True)


def _show(best: dict[str, dict[str, Any]], aim: float | None) -> None:
    """Our reading, which is the first, beside bare ones; the aim is that of the last."""
    (_, reading), *bare = best.items()
    _rows(best)
    for what, floor in bare:
        own, both, wall = (f"{floor[key] / reading[key]:.2f}" for key in ("cpu", "all", "wall"))
        print(f"| speed by {what} | | {own} | {both}{f' (aim >= {aim})' if aim and what == bare[-1][0] else ''} | {wall} | |", flush=True)


def _sharded(name: str, source_type: str, config: dict[str, Any], address: tuple[str, int], server: int) -> None:
    """One large table over one connection and more, at this machine and over a line that gives each connection so much."""
    from identity_pipeline_tests.servers.relay import Relay

    url, port = address
    with Relay("127.0.0.1", port, RATE) as relay:
        for way, place in (("", port), (f", {RATE / 10**6:g} MB/s each", relay.port)):
            environment = {"BENCH_URL": url.replace(f":{port}/", f":{place}/")}
            readings = {
                f"{name}, shards: {count}{way}": _command("ours", source_type, json.dumps(config | {"shards": count}))
                for count in (1, 2, 4)
            }
            _rows(_spent(readings, server, environment, by="wall", rounds=2))


def postgres(rows: tuple[int, int]) -> None:
    """A table of 20 columns in an embedded server."""
    import psycopg
    import pyarrow as pa
    from pyarrow import csv

    from benchmarks import data
    from identity_pipeline.embedded import server as embedded

    with tempfile.TemporaryDirectory(dir=OUT) as place:
        home = Path(place)
        home.chmod(0o711)
        url = embedded.start(home)
        try:
            columns = ", ".join(f"{name} {TYPES.get(name, 'text')}" for name in data.COLUMNS)
            with psycopg.connect(url, autocommit=True) as connection:
                folder = Path(connection.execute("show data_directory").fetchone()[0])
                connection.execute("create schema bench")
                for count in rows:
                    connection.execute(f"create table bench.t{count} ({columns})".encode())
                    with connection.cursor() as cursor, cursor.copy(f"copy bench.t{count} from stdin (format csv, null '')") as into:
                        for start in range(0, count, 100_000):
                            sink = pa.BufferOutputStream()
                            csv.write_csv(data.block(start, min(100_000, count - start)), sink, csv.WriteOptions(include_header=False))
                            into.write(sink.getvalue().to_pybytes())
                    connection.execute(f"vacuum analyze bench.t{count}".encode())
            server, environment = postmaster_pid(folder), {"BENCH_URL": f"{url}?sslmode=disable"}
            for count in rows:
                table = f"bench.t{count}"
                config = {"connection_string": {"env": "BENCH_URL"}, "table": table, "shards": 1}
                commands = {
                    "PostgreSQL": _command("ours", "postgres_identity", json.dumps(config)),
                    "bare COPY": _command("copy", url, table),
                }
                _show(_spent(commands, server, environment), 0.9)
            _sharded("PostgreSQL", "postgres_identity", config, (environment["BENCH_URL"], urlsplit(url).port or 5432), server)
        finally:
            embedded.stop(home)


def mysql(rows: tuple[int, int]) -> None:
    """The same table in a MariaDB server."""
    import psutil

    from benchmarks import data
    from identity_pipeline_tests import mysql_server

    with tempfile.TemporaryDirectory(dir=OUT) as place:
        os.environ["IDENTITY_TESTS_PLACE"] = place
        server = mysql_server.server()
        [process] = [child for child in psutil.Process().children() if "mariadbd" in child.name()]
        authority = Path(place) / "authority.pem"
        authority.write_text(server.ca)
        kinds = {name: kind.replace("timestamptz", "datetime").replace("numeric", "decimal") for name, kind in TYPES.items()}
        columns = ", ".join(f"{name} {kinds.get(name, 'varchar(200)')}" for name in data.COLUMNS)
        names, marks = ", ".join(data.COLUMNS[1:]), ", ".join(["%s"] * len(data.COLUMNS))
        with server.connect().cursor() as cursor:
            cursor.execute("CREATE DATABASE IF NOT EXISTS crm")
            cursor.execute("USE crm")
            for count in rows:
                cursor.execute(f"CREATE TABLE t{count} ({columns}, PRIMARY KEY (id))")
                block = data.block(0, min(count, 100_000)).to_pylist()
                stamps = ({**row, **{name: row[name].rstrip("Z") for name in ("created_at", "updated_at")}} for row in block)
                cursor.executemany(f"INSERT INTO t{count} VALUES ({marks})", [tuple(row.values()) for row in stamps])
                for start in range(100_000, count, 100_000):
                    cursor.execute(f"INSERT INTO t{count} SELECT id + {start}, {names} FROM t{count} WHERE id < 100000")
                cursor.execute(f"ANALYZE TABLE t{count}")
        drivers = _drivers()
        environment = {"BENCH_URL": f"mysql://{server.user}:{server.password}@127.0.0.1:{server.port}/crm"}
        for count in rows:
            config = {"connection_string": {"env": "BENCH_URL"}, "table": f"t{count}", "ca_certificate": server.ca, "shards": 1}
            commands = {"MySQL": _command("ours", "mysql_identity", json.dumps(config))} | {
                f"{driver}'s cursor": _command(
                    "cursor", driver, str(server.port), server.password, str(authority), f"t{count}", python=python
                )
                for driver, python in drivers.items()
            }
            _show(_spent(commands, process.pid, environment), 0.7 if "mysqlclient" in drivers else None)
        _sharded("MySQL", "mysql_identity", config, (environment["BENCH_URL"], server.port), process.pid)


def _drivers() -> dict[str, str]:
    """Drivers to compare with, and the interpreter that has each; the fastest last."""
    python, drivers = OUT / "mysql-venv" / "bin" / "python", {"PyMySQL": sys.executable}
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(OUT / "mysql-venv")], check=True)
    installed = subprocess.run([str(python), "-m", "pip", "install", "-qq", "mysqlclient", "psutil"], capture_output=True, check=False)
    if installed.returncode:
        print("| mysqlclient: left out, it cannot be built here: that takes a compiler and the client library's headers | | | | | |")
        return drivers
    return drivers | {"mysqlclient": str(python)}


def _command(*arguments: str, python: str = sys.executable) -> list[str]:
    return [python, "-m", "benchmarks.sql", *arguments]


def main() -> None:
    """Measure both databases, or one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", type=int, default=SMALL)
    parser.add_argument("--large", type=int, default=LARGE)
    parser.add_argument("--only", choices=("postgres", "mysql"))
    chosen = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    OUT.chmod(0o711)
    os.environ["IDENTITY_ALLOW_PRIVATE_HOSTS"] = "127.0.0.1"
    print("| table of 20 columns | rows | CPU of the reader, s | CPU with the server's, s | wall, s | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    for measure in (postgres, mysql):
        if chosen.only in {None, measure.__name__}:
            measure((chosen.small, chosen.large))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ours", source_type, config]:
            ours(source_type, json.loads(config))
        case ["copy", url, table]:
            copy(url, table)
        case ["cursor", driver, port, password, authority, table]:
            cursor(driver, port, password, authority, table)
        case _:
            main()
