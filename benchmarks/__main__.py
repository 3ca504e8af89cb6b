"""`python -m benchmarks`: loads beside their floors and beside dlt, in one run on one server.

Every figure is a ratio of two measurements of this run; the machine's noise is large, so ratios of
CPU below 1.4 and of wall time below 2 say little. The tables at the end are also written to
`benchmarks/out/results.md`.
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg

from benchmarks import data
from benchmarks.measure import Cost, postmaster_pid, run
from identity_pipeline.embedded import server as embedded
from identity_pipeline.store.migrate import migrate

OUT = Path(__file__).parent / "out"
SOURCES = """
sources:
  - name: contacts_csv
    source_type: csv_url
    config: {{url: "{url}", max_bytes: 2000000000}}
    default_region: DE
  - name: one_contact
    source_type: csv_url
    config: {{url: "{one}"}}
  - name: contacts_shuffled
    source_type: csv_url
    config: {{url: "{shuffled}", max_bytes: 2000000000}}
    default_region: DE
  - name: contacts_table
    source_type: postgres_identity
    config: {{connection_string: {{env: BENCH_SHOP_URL}}, table: bench.contacts}}
    default_region: DE
"""

EMPTY_JOB = """
import dagster as dg


@dg.op
def nothing():
    pass


@dg.job(executor_def=dg.in_process_executor)
def empty():
    nothing()
"""
MANY = 50


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=2, help="each case so often; the smaller cost counts")
    parser.add_argument("--memory", type=int, default=5, help="a last first load of so many times the rows, for its memory; 0: none")
    parser.add_argument("--no-dlt", action="store_true")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="identity-bench-") as folder:
        home = Path(folder) / "home"
        url = embedded.start(home)
        try:
            Bench(options, Path(folder), home, url).run()
        finally:
            embedded.stop(home)


class Bench:
    """One run of all cases."""

    def __init__(self, options: argparse.Namespace, folder: Path, home: Path, url: str) -> None:
        self.options, self.folder, self.home, self.url = options, folder, home, url
        with psycopg.connect(url) as connection:
            self.data_folder = Path(connection.execute("show data_directory").fetchone()[0])
        self.pid = postmaster_pid(self.data_folder)
        self.costs: dict[str, Cost] = {}
        self.written: dict[str, float] = {}
        """MB of write-ahead log by case."""
        self.loads: dict[str, dict] = {}

    def run(self) -> None:
        rows = self.options.rows
        self.say(f"generating {rows:,} contacts x {len(data.COLUMNS)} columns")
        web = self.folder / "web"
        web.mkdir()
        original = made(data.write, OUT / f"contacts_{rows}.csv", rows)
        changed = made(data.write, OUT / f"contacts_{rows}_1percent.csv", rows, 0.01)
        current = web / "contacts.csv"
        made(data.write, web / "one.csv", 1)
        mixed = made(data.shuffled, OUT / f"contacts_{rows}_shuffled.csv", original)
        link(mixed, web / "shuffled.csv")
        with self.server(web) as address:
            self.environment(f"{address}/contacts.csv")
            self.table(original)
            for number in range(self.options.rounds):
                self.say(f"round {number + 1} of {self.options.rounds}")
                self.fresh()
                link(original, current)
                self.load("csv first load", "contacts_csv")
                self.vacuum()
                self.load("csv unchanged", "contacts_csv", touch=current)
                link(changed, current)
                self.load("csv 1 % changed", "contacts_csv")
                self.load("start: one record", "one_contact")
                self.load("shuffled first load", "contacts_shuffled")
                self.load("shuffled unchanged", "contacts_shuffled", touch=web / "shuffled.csv")
                self.load("table first load", "contacts_table")
                self.load("table unchanged", "contacts_table")
                self.floors()
                if not self.options.no_dlt:
                    self.dlt(original)
            if self.options.memory:
                self.memory(current)
            self.starts(f"{address}/one.csv")
        self.report()

    def starts(self, address: str) -> None:
        """What a run costs before it does anything: by the command line, and beside Dagster's own."""
        job = self.folder / "empty.py"
        job.write_text(EMPTY_JOB)
        program = Path(sys.executable).with_name
        ingest, dagster = str(program("identity-pipeline")), str(program("dagster"))
        for _ in range(self.options.rounds):
            self.measured("start: import dagster", [sys.executable, "-c", "import dagster"])
            self.measured("start: empty Dagster job", [dagster, "job", "execute", "-f", str(job), "-j", "empty"])
            self.measured("start: ingest of a record", [ingest, "ingest", "one_contact", "--full"])
            self.measured("start: sources list", [ingest, "sources", "list"])
        many = self.folder / "many"
        many.mkdir()
        shutil.copy(Path(__file__).parent.parent / "workspace.yaml", self.folder / "dagster")
        load = "from identity_pipeline.orchestration import assets; assets.definitions().get_repository_def().get_all_jobs()"
        for number in (1, MANY, 10 * MANY):
            declared = "".join(f"  - {{name: s{n}, source_type: csv_url, config: {{url: '{address}?{n}'}}}}\n" for n in range(number))
            (many / "all.yaml").write_text(f"sources:\n{declared}")
            self.measured(f"definitions of {number}", [sys.executable, "-c", load], IDENTITY_SOURCES=str(many))
            if number <= MANY:
                self.measured(f"ingest --all of {number}", [ingest, "ingest", "--all"], IDENTITY_SOURCES=str(many))

    def memory(self, current: Path) -> None:
        rows = self.options.rows * self.options.memory
        self.say(f"one first load of {rows:,} rows, for its memory")
        self.fresh()
        big = made(data.write, self.folder / "big.csv", rows)
        link(big, current)
        self.load(f"csv first load x{self.options.memory}", "contacts_csv")
        self.load(f"csv unchanged x{self.options.memory}", "contacts_csv", touch=current)
        link(made(data.write, self.folder / "delta.csv", 10_000, 1.0), current)
        self.load(f"10,000 changed into x{self.options.memory}", "contacts_csv")

    def say(self, message: str) -> None:
        print(f"· {message}", flush=True)

    def server(self, folder: Path):
        import contextlib
        import functools
        import http.server
        import threading

        class Quiet(http.server.SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

        @contextlib.contextmanager
        def serve():
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_address[1]}"
            server.shutdown()

        return serve()

    def environment(self, address: str) -> None:
        sources = self.folder / "sources"
        sources.mkdir()
        others = {name: address.replace("contacts.csv", f"{name}.csv") for name in ("one", "shuffled")}
        (sources / "bench.yaml").write_text(SOURCES.format(url=address, **others))
        dagster_home = self.folder / "dagster"
        dagster_home.mkdir()
        shutil.copy(Path(__file__).parent.parent / "dagster.yaml", dagster_home)
        os.environ.update(
            IDENTITY_DATABASE_URL=self.url,
            IDENTITY_HOME=str(self.home),
            IDENTITY_SOURCES=str(sources),
            IDENTITY_ALLOW_PRIVATE_HOSTS="127.0.0.1",
            BENCH_SHOP_URL=f"{self.url}?sslmode=disable",
            DAGSTER_HOME=str(dagster_home),
        )

    def table(self, path: Path) -> None:
        columns = ", ".join(f"{name} text" for name in data.COLUMNS)
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("create schema bench")
            connection.execute(f"create table bench.contacts ({columns})")
            self.copy_in(connection, "bench.contacts", path, "csv, header")
            connection.execute("alter table bench.contacts add primary key (id)")

    @staticmethod
    def copy_in(connection: psycopg.Connection, target: str, path: Path, form: str = "csv") -> None:
        with path.open("rb") as source, connection.cursor().copy(f"copy {target} from stdin (format {form})") as copy:
            while piece := source.read(1 << 20):
                copy.write(piece)

    def fresh(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("drop schema if exists identity cascade")
            connection.execute("drop schema if exists dlt_bench cascade")
        migrate(self.url)
        self.checkpoint()

    def vacuum(self) -> None:
        """As the server does by itself a minute after a first load: who reads a row first notes on its page that it is committed."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("vacuum analyze identity.records")

    def checkpoint(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("checkpoint")

    def wal(self) -> int:
        """Bytes of write-ahead log since the server was made."""
        with psycopg.connect(self.url) as connection:
            return int(connection.execute("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')").fetchone()[0])

    def measured(self, case: str, command: list[str], **environment: str) -> dict:
        self.checkpoint()
        before = self.wal()
        cost, said = run(command, self.pid, environment)
        self.written[case] = (self.wal() - before) / 2**20
        best = self.costs.get(case)
        if best is None or cost.cpu < best.cpu:
            self.costs[case] = cost
        self.say(
            f"{case:24} CPU {cost.client_cpu:5.1f} + {cost.server_cpu:5.1f} = {cost.cpu:5.1f} s, wall {cost.wall:5.1f} s, "
            f"peak {cost.peak_mb:5.0f} MB"
        )
        return said

    def load(self, case: str, source: str, touch: Path | None = None) -> None:
        if touch:  # else the connector would know the file again by its checksum, and read nothing
            os.utime(touch)
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("delete from identity.files")
        said = self.measured(case, [sys.executable, "-m", "benchmarks.load", source])
        self.loads[case] = said
        counts = {
            k: said[k] for k in ("records_read", "inserted", "updated", "unchanged", "duplicates", "quarantined", "filtered") if said.get(k)
        }
        print("    " + ", ".join(f"{key} {value:,}" for key, value in counts.items()), flush=True)

    def floors(self) -> None:
        """Less than this no load can cost: the finished rows by one COPY; keys and hashes against the index."""
        rows, keys = self.folder / "rows.csv", self.folder / "keys.csv"
        with psycopg.connect(self.url, autocommit=True) as connection:
            for target, query in (
                (rows, "select * from identity.records where source_name = 'contacts_csv'"),
                (keys, "select external_id, record_hash from identity.records where source_name = 'contacts_csv'"),
            ):
                with target.open("wb") as out, connection.cursor().copy(f"copy ({query}) to stdout (format csv)") as copy:
                    for piece in copy:
                        out.write(piece)
            connection.execute("drop table if exists bench.floor")
            connection.execute("create table bench.floor (like identity.records including all)")
        psql = str(self.psql())
        self.measured("floor: COPY of rows", [psql, "-qX", self.url, "-c", f"\\copy bench.floor from '{rows}' (format csv)"])
        probe = self.folder / "probe.sql"
        probe.write_text(
            'create temp table probe (external_id text collate "C", hash bytea);\n'
            f"\\copy probe from '{keys}' (format csv)\n"
            "analyze probe;\n"
            "select count(*) from probe p left join identity.records r on r.source_name = 'contacts_csv' "
            "and r.external_id = p.external_id where r.record_hash is distinct from p.hash;\n"
        )
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("vacuum analyze identity.records")
        self.measured("floor: key + hash probe", [psql, "-qX", self.url, "-f", str(probe)])

    def psql(self) -> Path:
        from identity_pipeline.embedded.binaries import packaged

        own = packaged() / "psql"
        return own if own.exists() else Path(shutil.which("psql") or "psql")

    def dlt(self, path: Path) -> None:
        python = OUT / "dlt-venv" / "bin" / "python"
        if not python.exists():
            self.say("installing dlt into an environment of its own")
            subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-qq", "dlt[postgres]>=1.20", "pyarrow"], check=True)
        state = self.folder / "dlt"
        shutil.rmtree(state, ignore_errors=True)
        script = str(Path(__file__).parent / "with_dlt.py")
        for case in ("dlt first load", "dlt unchanged"):
            self.measured(
                case, [str(python), script, str(path), self.url, str(state)], RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="ERROR"
            )

    def report(self) -> None:
        costs = self.costs
        lines = [
            f"{self.options.rows:,} rows x {len(data.COLUMNS)} columns, best of {self.options.rounds} rounds, {os.cpu_count()} cores",
            "",
            "| case | CPU client + server, s | wall, s | client's peak, MB | WAL, MB |",
            "|---|---|---|---|---|",
            *(
                f"| {case} | {c.client_cpu:.1f} + {c.server_cpu:.1f} = {c.cpu:.1f} | {c.wall:.1f} | {c.peak_mb:.0f} | "
                f"{self.written[case]:.0f} |"
                for case, c in costs.items()
            ),
            "",
            "| ratio | of CPU | of wall | aim |",
            "|---|---|---|---|",
        ]
        aims = [
            ("csv first load", "floor: COPY of rows", "<= 1.6"),
            ("csv first load", "dlt first load", "<= 1.0"),
            ("csv unchanged", "floor: key + hash probe", "<= 2.5 without start"),
            ("csv unchanged", "dlt unchanged", "<= 0.25"),
            ("csv 1 % changed", "csv unchanged", "<= 1.2"),
            ("shuffled first load", "csv first load", ""),
            ("shuffled unchanged", "csv unchanged", ""),
            ("table first load", "floor: COPY of rows", "<= 1.6"),
            ("table unchanged", "floor: key + hash probe", "<= 2.5 without start"),
            ("start: ingest of a record", "start: empty Dagster job", "<= 1.3"),
            ("start: sources list", "start: import dagster", ""),
            ("definitions of 1", "start: import dagster", ""),
        ]
        for case, base, aim in aims:
            if case in costs and base in costs:
                lines.append(
                    f"| {case} / {base} | {costs[case].cpu / costs[base].cpu:.2f} | {costs[case].wall / costs[base].wall:.2f} | {aim} |"
                )
        start = costs["start: one record"].cpu
        for case, base, aim in aims:
            if case in costs and base.startswith("floor") and base in costs:
                lines.append(f"| ({case} - start) / {base} | {(costs[case].cpu - start) / costs[base].cpu:.2f} | | {aim} |")
        scaled = f"csv first load x{self.options.memory}"
        if scaled in costs:
            lines.append(
                f"| peak memory, {scaled} / csv first load | {costs[scaled].peak_mb / costs['csv first load'].peak_mb:.2f} | | <= 1.10 |"
            )
        if f"ingest --all of {MANY}" in costs:
            further = (costs[f"ingest --all of {MANY}"].cpu - costs["ingest --all of 1"].cpu) / (MANY - 1)
            lines.append(f"| CPU s of each further source in one ingest | {further:.2f} | | <= 0.5 |")
        share = self.written["csv unchanged"] / self.written["csv first load"]
        lines.append(f"| WAL, csv unchanged / csv first load | {share:.3f} | | <= 0.02 |")
        text = "\n".join(lines)
        (OUT / "results.md").write_text(text + "\n")
        print("\n" + text)


def made(write: Callable[..., Path], path: Path, *of: object) -> Path:
    """Have a file written by a process of its own: the memory of this one is where the peak of each that it starts begins."""
    process = multiprocessing.get_context("spawn").Process(target=write, args=(path, *of))
    process.start()
    process.join()
    return path


def link(target: Path, name: Path) -> None:
    """Make ``name`` stand for ``target``, with a modification time of now."""
    name.unlink(missing_ok=True)
    name.symlink_to(target.resolve())
    os.utime(target)


if __name__ == "__main__":
    main()
