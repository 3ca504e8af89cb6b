"""The embedded Postgres, with the real server throughout."""

import json
import os
import pickle
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from identity_pipeline.core.errors import ConfigurationError, TargetUnavailable
from identity_pipeline.embedded import binaries, process
from identity_pipeline.embedded import server as embedded
from identity_pipeline.embedded.cluster import Cluster, locked
from identity_pipeline.embedded.location import database_url
from identity_pipeline_tests import clusters

NOBODY = 65534


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for homes; their servers are stopped and all is deleted at the end."""
    first = free_port()
    monkeypatch.setattr(embedded, "PORTS", range(first, first + 10))
    folder = clusters.place("embedded-")
    yield folder
    for home in folder.iterdir():
        clusters.remove(home)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def _home() -> Iterator[Path]:
    folder = clusters.place("embedded-")
    embedded.start(folder / "home", port=free_port())
    yield folder / "home"
    clusters.remove(folder / "home")
    shutil.rmtree(folder)


@pytest.fixture
def home(_home: Path) -> Path:
    """The home of a running server, shared by the tests of this module; some stop or kill it."""
    embedded.start(_home)
    return _home


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def ask(url: str, statement: str) -> list[tuple]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def postmaster(home: Path) -> int:
    return int((_cluster(home).data / "postmaster.pid").read_text().split()[0])


def _cluster(home: Path) -> Cluster:
    cluster = embedded._known(home)
    assert cluster is not None
    return cluster


def free_port() -> int:
    """A port that neither another worker's server nor an outgoing connection takes while ours is stopped."""
    return next(port for port in iter(lambda: random.randrange(20_000, 32_000), 0) if embedded._free(port))


def starter(home: Path, port: int | None = None, then: str = "") -> subprocess.Popen[str]:
    """Another process, in a session of its own, that starts the server of ``home``."""
    script = (
        "import sys, pathlib, time\nfrom identity_pipeline.embedded import server as embedded\n"
        "say = lambda text: print(text, flush=True)\n"
        f"say(embedded.start(pathlib.Path(sys.argv[1]), port={port}, progress=say))\n{then}"
    )
    command = [sys.executable, "-c", script, str(home)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2], start_new_session=True)


def test_a_first_start_makes_a_durable_database(home: Path):
    url = embedded.start(home)
    assert url == embedded.url(home)
    settings = dict(ask(url, "select name, setting from pg_settings"))
    expected = {
        "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "data_checksums": "on",
        "server_encoding": "UTF8", "TimeZone": "UTC", "max_connections": "200", "idle_in_transaction_session_timeout": "0",
    }  # fmt: skip
    assert {name: settings[name] for name in expected} == expected
    assert ask(url, "select datcollate, datlocale from pg_database where datname = current_database()") == [("C.UTF-8", "C.UTF-8")]


def test_nobody_else_reads_what_home_holds(home: Path):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home, home / "postgres.json", _cluster(home).data)}
    assert modes == {"home": 0o710 if os.geteuid() == 0 else 0o700, "postgres.json": 0o600, "data": 0o700}


def test_only_loopback_with_the_password_gets_in(home: Path):
    url = embedded.start(home)
    assert ask(url, "show listen_addresses") == [("127.0.0.1",)]
    assert ask(url, "show unix_socket_directories") == [("",)]
    assert ask(url, "select distinct auth_method from pg_hba_file_rules") == [("scram-sha-256",)]
    password = _cluster(home).password
    assert len(password) >= 32
    for wrong in (f":{password}x", ":", ""):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(url.replace(f":{password}", wrong))


def test_a_second_start_leaves_the_running_server_alone(home: Path):
    before, url = postmaster(home), embedded.url(home)
    assert embedded.start(home) == embedded.ensure(home) == url
    assert postmaster(home) == before


def test_a_relative_home_is_meant_from_the_working_folder(home: Path, monkeypatch: pytest.MonkeyPatch):
    url = embedded.url(home)
    monkeypatch.chdir(home.parent)
    assert embedded.stop(Path("home")) is True
    assert embedded.start(Path("home")) == url
    assert _cluster(home).password not in repr(_cluster(home))


def test_data_survive_a_stop_and_a_start(home: Path):
    url = embedded.start(home)
    ask(url, "create table kept as select 42 as answer")
    assert embedded.stop(home) is True
    assert embedded.running(home) is False
    assert embedded.stop(home) is False
    assert embedded.start(home) == url
    assert embedded.running(home) is True
    assert ask(url, "select answer from kept") == [(42,)]


def test_the_server_inherits_no_secret_of_the_process_that_starts_it(home: Path, monkeypatch: pytest.MonkeyPatch):
    embedded.stop(home)
    monkeypatch.setenv("IDENTITY_ENCRYPTION_KEYS", "the-key")
    embedded.start(home)
    assert b"the-key" not in Path(f"/proc/{postmaster(home)}/environ").read_bytes()


def test_a_killed_server_starts_again_though_its_backends_work_on(home: Path):
    url = embedded.start(home)
    ask(url, "create table committed as select generate_series(1, 1000)")
    with closing(psycopg.connect(url, autocommit=True)) as busy:
        busy.pgconn.send_query(b"select count(*) from generate_series(1, 1000000000)")
        pid = busy.info.backend_pid
        os.kill(postmaster(home), signal.SIGKILL)
        assert embedded.start(home) == url
        assert not process._belongs(_cluster(home), pid)
    assert ask(url, "select count(*) from committed") == [(1000,)]


def test_a_dead_process_that_nobody_buried_does_not_block_the_start(home: Path):
    """Where process 1 reaps nothing, as in many containers, a killed server stays in the process table."""
    pid_file = _cluster(home).data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    embedded.stop(home)
    account = binaries.account(_cluster(home).data, home)
    dead = subprocess.Popen(["/bin/true"], **account.options)
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    pid_file.write_text("\n".join([str(dead.pid), *lines[1:]]) + "\n")
    pid_file.chmod(0o600)
    account.own(pid_file)
    began = time.monotonic()
    assert embedded.running(home) is False
    embedded.start(home)
    assert time.monotonic() - began < process.RETRY_SECONDS / 2
    dead.wait()


def test_without_proc_the_remains_of_a_killed_server_are_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch):
    url = embedded.start(home)
    monkeypatch.setattr(process, "_PROC", Path("/nonexistent"))
    with closing(psycopg.connect(url)) as orphan:
        backend = orphan.info.backend_pid
        os.kill(backend, signal.SIGSTOP)  # holds the shared memory until it goes on and sees that it is alone
        wake = threading.Timer(2.5, os.kill, (backend, signal.SIGCONT))
        wake.start()
        os.kill(postmaster(home), signal.SIGKILL)
        assert embedded.start(home) == url
        wake.join()
    assert ask(url, "select 1") == [(1,)]


def test_a_foreign_process_with_the_old_number_is_left_alone(home: Path):
    pid_file = _cluster(home).data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    embedded.stop(home)
    account = binaries.account(_cluster(home).data, home)
    with subprocess.Popen(["/bin/sleep", "60"], **account.options) as foreign:
        pid_file.write_text("\n".join([str(foreign.pid), *lines[1:]]) + "\n")
        pid_file.chmod(0o600)
        account.own(pid_file)
        assert embedded.running(home) is False
        assert embedded.stop(home) is False
        embedded.start(home)
        assert foreign.poll() is None
        foreign.kill()


def test_a_port_that_another_program_took_is_left_to_it_and_the_next_one_remembered(
    home: Path, taken: int, monkeypatch: pytest.MonkeyPatch
):
    embedded.stop(home)
    state = json.loads((home / "postgres.json").read_text())
    (home / "postgres.json").write_text(json.dumps({**state, "port": taken}))
    chosen, said = free_port(), []
    monkeypatch.setattr(embedded, "PORTS", range(chosen, chosen + 1))
    moved = embedded.start(home, progress=said.append)
    assert f":{chosen}/" in moved
    assert f"another program has port {taken}: the database is on port {chosen} from now on" in said[-1]
    assert embedded.stop(home)
    assert embedded.start(home) == embedded.url(home) == moved


def test_a_port_that_was_asked_for_and_is_taken_is_named(home: Path, taken: int):
    port = _cluster(home).port
    with pytest.raises(ConfigurationError, match=rf"already runs on port {port}: run `identity-pipeline db stop`"):
        embedded.start(home, port=taken)
    embedded.stop(home)
    with pytest.raises(ConfigurationError, match=rf"port {taken} is taken .* `identity-pipeline db start --port N`"):
        embedded.start(home, port=taken)
    assert f":{port}/" in embedded.start(home)


def test_a_stranger_on_our_port_is_not_spoken_to(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_HOME", str(home))
    monkeypatch.delenv("IDENTITY_DATABASE_URL", raising=False)
    embedded.stop(home)
    with socket.create_server(("127.0.0.1", _cluster(home).port)) as stranger:
        assert embedded.running(home) is False
        with pytest.raises(TargetUnavailable, match="not running: start it with `identity-pipeline db start`"):
            database_url()
        embedded.start(home)
        stranger.settimeout(0)
        with pytest.raises(BlockingIOError):
            stranger.accept()


@pytest.mark.parametrize("asks", [3, 0])  # a password as it is; nothing
def test_a_stranger_that_took_our_port_meanwhile_gets_no_password_and_no_session(home: Path, monkeypatch: pytest.MonkeyPatch, asks: int):
    """A process that was given the address before the server stopped connects to it later."""
    monkeypatch.setenv("IDENTITY_HOME", str(home))
    monkeypatch.delenv("IDENTITY_DATABASE_URL", raising=False)
    url, heard = database_url(), []
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def answer() -> None:
            client, _ = stranger.accept()
            with client:
                client.settimeout(5)
                while said := client.recv(1000):
                    heard.append(said)
                    asked_for_tls = said[4:8] == (80877103).to_bytes(4)
                    client.sendall(b"N" if asked_for_tls else b"R" + (8).to_bytes(4) + asks.to_bytes(4) + b"Z" + (5).to_bytes(4) + b"I")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(psycopg.OperationalError, match="authentication"):
            psycopg.connect(url.replace(f":{_cluster(home).port}/", f":{stranger.getsockname()[1]}/"))
        thread.join()
    assert b"identity" in b"".join(heard)
    assert _cluster(home).password.encode() not in b"".join(heard)


def test_a_copy_of_a_home_is_a_database_of_its_own(home: Path, place: Path):
    """As a backup that is put back beside the running one: it has the same name, password and port."""
    url, copy = embedded.start(home), place / "copy"
    ask(url, "checkpoint")
    subprocess.run(["/bin/cp", "-a", home, copy], check=True)
    assert embedded.running(copy) is False
    assert embedded.start(copy) != url
    ask(embedded.start(copy), "create table only_in_the_copy (id int)")
    assert ask(url, "select to_regclass('only_in_the_copy')") == [(None,)]


def test_the_running_servers_port_is_believed_over_the_file(home: Path):
    """A start that was killed after it moved the server could not write the new port down."""
    url, state = embedded.start(home), json.loads((home / "postgres.json").read_text())
    (home / "postgres.json").write_text(json.dumps({**state, "port": free_port()}))
    assert embedded.start(home) == url == embedded.url(home)


@pytest.mark.parametrize("left", [None, "", "{pid}\n/data\n1764000000\n"], ids=["gone", "empty", "no port yet"])
def test_a_server_that_goes_or_comes_while_we_look_is_asked_for_at_the_port_we_know(
    home: Path, monkeypatch: pytest.MonkeyPatch, left: str | None
):
    """Its ``postmaster.pid`` is deleted and written at any moment, between two looks too."""
    pid_file, known = _cluster(home).data / "postmaster.pid", embedded.alive
    port = json.loads((home / "postgres.json").read_text())["port"]

    def just_seen(cluster: Cluster) -> bool:
        alive = known(cluster)
        if alive:
            pid_file.rename(aside)
        if alive and left is not None:
            pid_file.write_text(left.format(pid=os.getpid()))
        return alive

    aside = pid_file.with_name("aside")
    monkeypatch.setattr(embedded, "alive", just_seen)
    try:
        assert f":{port}/" in str(embedded.url(home))
    finally:
        aside.replace(pid_file)


def test_a_first_start_passes_over_taken_ports(place: Path, taken: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "PORTS", range(taken, taken + 1))
    with pytest.raises(ConfigurationError, match=rf"the ports {taken} to {taken} are taken"):
        embedded.start(place / "home")
    monkeypatch.setattr(embedded, "PORTS", range(taken, min(taken + 50, 65536)))
    url = embedded.start(place / "home")
    assert taken < int(url.rpartition(":")[2].partition("/")[0]) < taken + 50


def test_two_starts_at_once_make_one_server(place: Path):
    home, port = place / "home", free_port()
    said = [process.communicate(timeout=60)[0].splitlines() for process in [starter(home, port), starter(home, port)]]
    assert said[0][-1] == said[1][-1] == embedded.url(home)
    assert sum("initialising database (first start)" in lines for lines in said) == 1
    assert ask(said[0][-1], "select count(*) from pg_database where datname = 'identity'") == [(1,)]


def test_the_server_outlives_ctrl_c_and_the_end_of_its_starter(home: Path):
    embedded.stop(home)
    with starter(home, then="time.sleep(60)") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        url = next(line.strip() for line in lines if line.startswith("postgresql://"))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10) != 0
    assert ask(url, "select 1") == [(1,)]


def test_a_start_killed_while_initialising_is_made_good(place: Path):
    home = place / "home"
    with starter(home) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("initialising database")
        until = time.monotonic() + 10
        while not list((home / "postgres").glob("data.new-*/base")) and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
    assert embedded.url(home) is None
    left = home / "postgres" / "data.new-0"
    left.mkdir()
    assert ask(embedded.start(home), "select 1") == [(1,)]
    assert not left.exists()


def test_a_start_waits_no_longer_than_asked_for_another(home: Path):
    embedded.stop(home)
    with locked(home, time.monotonic() + 5), pytest.raises(TargetUnavailable, match="another process"):
        embedded.start(home, timeout=0.2)


def test_a_folder_that_is_not_a_database_is_refused_and_left_as_it_is(place: Path):
    data = place / "home" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "letter.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"not a PostgreSQL data folder .*set IDENTITY_HOME"):
        embedded.start(place / "home")
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigurationError, match=r"made by PostgreSQL 9, the installed programs are \d+\.\d+"):
        embedded.start(place / "home")
    assert (data / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize("where", ["/proc/identity", "/dev/null", "/dev/null/home"])
def test_a_home_that_cannot_be_one_is_named(where: str):
    with pytest.raises(ConfigurationError, match=rf"{where}.*IDENTITY_HOME"):
        embedded.start(Path(where))


def test_data_that_are_gone_are_not_silently_made_anew(home: Path):
    embedded.stop(home)
    data = _cluster(home).data
    aside = data.rename(data.with_name("aside"))
    with pytest.raises(ConfigurationError, match=r"data of the embedded Postgres are gone.*postgres.json to begin"):
        embedded.start(home)
    aside.rename(data)
    embedded.start(home)


def test_a_lost_or_broken_state_file_costs_the_password_not_the_data(home: Path):
    before = embedded.start(home)
    ask(before, "create table outlasting as select 1")
    (home / "postgres.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"postgres.json .*delete it and run `identity-pipeline db start`"):
        embedded.start(home)
    (home / "postgres.json").unlink()
    after = embedded.start(home)
    assert after != before
    assert ask(after, "select * from outlasting") == [(1,)]


def test_a_password_that_the_server_refuses_is_said_to_be_wrong(home: Path):
    state = json.loads((home / "postgres.json").read_text())
    (home / "postgres.json").write_text(json.dumps({**state, "password": "of an old backup"}))
    try:
        for call in (embedded.start, embedded.running):
            with pytest.raises(ConfigurationError, match=r"refuses the password in postgres.json: delete that file"):
                call(home)
    finally:
        (home / "postgres.json").write_text(json.dumps(state))


def test_a_moved_home_keeps_its_server(home: Path):
    url = embedded.start(home)
    elsewhere = home.rename(home.with_name("elsewhere"))
    try:
        assert embedded.start(elsewhere) == url
        assert embedded.running(home) is False
        assert embedded.stop(elsewhere) is True
        assert ask(embedded.start(elsewhere), "select 1") == [(1,)]
    finally:
        elsewhere.rename(home)


def test_the_log_holds_no_values_of_records(home: Path):
    url = embedded.start(home)
    ask(url, "create table unique_emails (email text primary key)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        ask(url, "insert into unique_emails values ('ada@example.org'), ('ada@example.org')")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        ask(url, "select cast('ada@example.org' as int)")
    embedded.stop(home)
    log = _cluster(home).log.read_text()
    assert "database system is shut down" in log
    assert "ada" not in log


@pytest.mark.parametrize(
    ("said", "advice"),
    [("could not write: No space left on device", "free some space"), ("could not look up effective user ID", "IDENTITY_DATABASE_URL")],
)
def test_a_failed_initdb_says_why_and_not_the_password(place: Path, monkeypatch: pytest.MonkeyPatch, said: str, advice: str):
    programs = place / "programs"
    programs.mkdir()
    for name, script in {
        "postgres": "echo 'postgres (PostgreSQL) 18.6'",
        "initdb": f'cat "$2.password" >&2; echo "{said}" >&2; exit 1',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(binaries, "packaged", lambda: programs)
    monkeypatch.setattr(embedded.secrets, "token_urlsafe", lambda _length: "the-password")
    with pytest.raises(ConfigurationError, match=advice) as caught:
        embedded.start(place / "home")
    assert said.rpartition(": ")[2] in str(caught.value)
    assert "the-password" not in str(caught.value)


def test_without_the_package_the_message_says_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(binaries, "PACKAGE", "no-such-package")
    with pytest.raises(ConfigurationError, match=r"no-such-package.*IDENTITY_DATABASE_URL"):
        embedded.start(place / "home")


def _as_nobody(work: Callable[[], object]) -> object:
    """The result of ``work``, done by a child that has given up root for good."""
    reader, writer = os.pipe()
    child = os.fork()  # not exec: this Python may lie where nobody cannot read
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writer, pickle.dumps(work()))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return pickle.loads(answer)


def test_root_and_ordinary_users_both_run_it_and_the_server_is_never_root(home: Path, place: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever runs the tests is one case; root, who can become somebody else, runs the other one too."""
    url = embedded.start(home)
    assert Path(f"/proc/{postmaster(home)}").stat().st_uid == (os.geteuid() or NOBODY)
    assert ask(url, "select 1") == [(1,)]
    if os.geteuid() == 0:
        reachable = binaries.programs(binaries.Account(NOBODY, NOBODY), print).folder
        monkeypatch.setattr(binaries, "packaged", lambda: reachable)
        os.chown(place, NOBODY, NOBODY)
        theirs = place / "theirs"
        own = _as_nobody(lambda: (embedded.start(theirs), embedded.start(theirs), embedded.stop(theirs), embedded.start(theirs)))
        assert own == (embedded.url(theirs), embedded.url(theirs), True, embedded.url(theirs))
        assert (theirs.stat().st_uid, stat.S_IMODE(theirs.stat().st_mode)) == (NOBODY, 0o700)
        assert Path(f"/proc/{postmaster(theirs)}").stat().st_uid == NOBODY
        with pytest.raises(AssertionError):
            _as_nobody(lambda: embedded.start(home))  # root's home is not theirs
        embedded.stop(theirs)
        clusters.remove(theirs)
        theirs.mkdir()
        os.chown(theirs, NOBODY, NOBODY)
        embedded.start(theirs)
        assert _as_nobody(lambda: embedded.stop(theirs)) is True  # a first start by root has not taken it from them


def test_private_folders_stay_private(place: Path, monkeypatch: pytest.MonkeyPatch):
    """Below a folder that the server's account cannot pass, root keeps programs and data elsewhere; others need not."""
    private = place / "private"
    private.mkdir(mode=0o700)
    package = binaries.packaged().parent.parent
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, private / folder.name, symlinks=True, ignore=shutil.ignore_patterns("*.pyc"))
    monkeypatch.setattr(binaries, "packaged", lambda: private / package.name / "pginstall" / "bin")
    monkeypatch.setattr(binaries, "SYSTEM", place / "system")
    home = private / "home"
    try:
        url = embedded.start(home)
        assert ask(url, "select 1") == [(1,)]
        assert embedded.stop(home) is True
        assert embedded.start(home) == url
        assert _cluster(home).folder.is_relative_to(place / "system" if os.geteuid() == 0 else home)
        assert stat.S_IMODE(private.stat().st_mode) == stat.S_IMODE(home.stat().st_mode) == 0o700
        moved = home.rename(private / "moved")
        assert embedded.start(home) != url  # a new home in the old place has a database of its own
        assert embedded.start(moved) == url
        assert ask(url, "select 1") == [(1,)]
    finally:
        clusters.remove(private / "moved")
        clusters.remove(home)
