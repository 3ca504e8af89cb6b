"""SFTP: the host proves itself first, keys and passwords, files that grow or change, links, folders."""

import os
import pwd
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from identity_pipeline.connectors.sftp_csv import SftpCsv
from identity_pipeline.core.errors import (
    ConfigurationError,
    CredentialError,
    LimitExceeded,
    PermissionDenied,
    SourceRejected,
    SourceUnavailable,
)
from identity_pipeline_tests.connectors.reading import read, secret, window
from identity_pipeline_tests.servers import sftp


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sftp.Server]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    (tmp_path / "home").mkdir()
    with sftp.Server(tmp_path / "home", password="right", own=sftp.key(name="own")) as made:
        yield made


def source(server: sftp.Server, **options) -> SftpCsv:
    given = {"host": "127.0.0.1", "port": server.port, "user": "reader", "password": secret("right"), "public_host_key": server.host_key}
    return SftpCsv(**given | options)


def ids(made: SftpCsv, **options) -> list[str]:
    return read(made, window(made, **options))[0]["id"].tolist()


def private(key: asyncssh.SSHKey, passphrase: str | None = None, form: str = "openssh") -> str:
    return key.export_private_key(form, passphrase).decode()


# the host's key


@pytest.mark.parametrize("pin", ["line", "known_hosts", "addresses", "hashed", "prefixed", "remark", "lines", "fingerprint", "several"])
def test_a_host_whose_key_is_pinned_is_read(server: sftp.Server, pin: str) -> None:
    server.put("a.csv", b"id\n1\n")
    fingerprint = server.host_keys[0].get_fingerprint()
    other = sftp.key(name="other").export_public_key().decode().strip()
    known = {"line": server.host_key, "known_hosts": f"[127.0.0.1]:{server.port} {server.host_key}", "fingerprint": fingerprint,
             "addresses": f"files.example.com,203.0.113.5,[203.0.113.5]:2222 {server.host_key}",
             "hashed": f"|1|aGFzaA==|aG9zdA== {server.host_key}",
             "prefixed": f"ssh-gw.example.com {server.host_key}", "remark": f"{server.host_key} Ann, 2nd floor",
             "lines": f"# files.example.com:22 SSH-2.0\nfiles.example.com {other}\n\n  files.example.com,203.0.113.5 {server.host_key}\n",
             "several": f"{other},{server.host_key}"}  # fmt: skip
    assert ids(source(server, public_host_key=known[pin])) == ["1"]


@pytest.mark.parametrize(
    ("pin", "advice"), [("", "none is pinned: ask whoever runs the server"), ("other", "somebody may stand in between")]
)
def test_a_host_that_does_not_prove_itself_is_told_nothing(server: sftp.Server, pin: str, advice: str) -> None:
    pinned = sftp.key(name="other").export_public_key().decode() if pin else ""
    with pytest.raises(ConfigurationError, match=advice) as caught:
        ids(source(server, public_host_key=pinned))
    assert server.host_keys[0].get_fingerprint() in str(caught.value)
    assert server.logins == []


def test_of_a_host_with_several_keys_the_pinned_one_is_asked_for(server: sftp.Server, tmp_path: Path) -> None:
    both = (sftp.key("ssh-rsa"), sftp.key())
    with sftp.Server(server.folder, password="right", host_keys=both) as many:
        many.put("a.csv", b"id\n1\n")
        for key in both:
            assert ids(source(many, public_host_key=key.export_public_key().decode())) == ["1"]


def test_what_is_no_key_of_a_host_is_refused(server: sftp.Server) -> None:
    with pytest.raises(ConfigurationError, match="as in known_hosts"):
        ids(source(server, public_host_key="AAAA"))
    for marker in ("@cert-authority", "@revoked"):
        with pytest.raises(ConfigurationError, match="no key to pin"):
            ids(source(server, public_host_key=f"{marker} * {server.host_key}"))
    assert server.logins == []


# who asks


@pytest.mark.parametrize(("kind", "form", "phrase"), [
    ("ssh-ed25519", "openssh", None), ("ssh-ed25519", "openssh", "phrase"), ("ssh-rsa", "pkcs1-pem", "phrase"),
    ("ecdsa-sha2-nistp256", "openssh", None),
])  # fmt: skip
def test_a_key_signs_in_with_its_passphrase(server: sftp.Server, kind: str, form: str, phrase: str | None) -> None:
    server.put("a.csv", b"id\n1\n")
    server.own = sftp.key(kind, "own")
    given = {"password": None, "private_key": secret(private(server.own, phrase, form)), "passphrase": secret(phrase) if phrase else None}
    assert ids(source(server, **given)) == ["1"]
    if phrase:
        with pytest.raises(ConfigurationError, match="set passphrase"):
            ids(source(server, **given | {"passphrase": None}))
        with pytest.raises(ConfigurationError, match="does not open private_key"):
            ids(source(server, **given | {"passphrase": secret("wrong")}))


@pytest.mark.parametrize(
    ("options", "error", "advice"),
    [
        ({"password": secret("wrong")}, CredentialError, "does not accept the credential"),
        ({"user": "nobody"}, CredentialError, "check user"),
        ({"password": None, "private_key": secret(private(sftp.key(name="another")))}, CredentialError, "does not accept"),
        ({"password": None, "private_key": secret("PuTTY-User-Key-File-3: ssh-ed25519")}, ConfigurationError, "ssh-keygen"),
        ({"password": None}, ConfigurationError, "set password or private_key"),
        ({"host": "10.1.2.3"}, ConfigurationError, "IDENTITY_ALLOW_PRIVATE_HOSTS"),
        ({"prefix": "nowhere/"}, SourceRejected, "no such folder"),
    ],
)
def test_what_is_refused_is_said_with_what_to_do(server: sftp.Server, options, error: type[Exception], advice: str) -> None:
    with pytest.raises(error, match=advice) as caught:
        ids(source(server, **options))
    assert "wrong" not in str(caught.value)


def test_a_server_that_wants_a_password_only_says_so(tmp_path: Path, server: sftp.Server) -> None:
    server.own = None
    with pytest.raises(CredentialError, match="signs in by"):
        ids(source(server, password=None, private_key=secret(private(sftp.key(name="own")))))


# files


def test_only_what_changed_is_read_again_and_what_is_newer_than_a_late_file_with_an_old_date(server: sftp.Server) -> None:
    server.put("b.csv", b"id\n1\n")
    server.put("c.csv", b"id\n0\n", at=900_000_000)
    made = source(server)
    first = window(made)
    assert read(made, first)[0]["id"].tolist() == ["0", "1"]
    server.put("a.csv", b"id\n2\n", at=1_000_000_000)
    second = window(made, "id", cursor_type="text", files=first.context.files)
    assert read(made, second)[0]["id"].tolist() == ["2", "1"]
    assert second.context.files_unchanged == 1


def test_folders_are_gone_through_where_the_pattern_leads_and_links_are_not_followed(server: sftp.Server, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_bytes(b"id\n9\n")
    for number, name in enumerate(["exports/a.csv", "exports/2026/b.csv", "exports/2026/01/c.csv", "other/d.csv", "exports/e.txt"]):
        server.put(name, b"id\n%d\n" % number)
    (server.folder / "exports" / "link.csv").symlink_to("a.csv")
    (server.folder / "exports" / "out.csv").symlink_to(tmp_path / "secret.csv")
    (server.folder / "exports" / "folder").symlink_to("../other")
    made = source(server, prefix="exports/", glob="**/*.csv")
    asked = window(made)
    assert read(made, asked)[0]["id"].tolist() == ["0", "1", "2"]
    assert any("2 symbolic links" in warning for warning in asked.context.warnings)
    assert ids(source(server, prefix="exports/", glob="*.csv")) == ["0"]
    assert ids(source(server, prefix="/exports/", glob="*/*.csv")) == ["1"]
    assert ids(source(server, prefix="exports/20", glob="**")) == ["1", "2"]


def test_what_begins_with_a_dot_or_an_underscore_is_neither_read_nor_looked_into(server: sftp.Server) -> None:
    for number, name in enumerate(["a.csv", ".a.csv.Xa3", "_committed_1", ".ssh/keys", "in/_spark/b.csv"]):
        server.put(name, b"id\n%d\n" % number)
    listed = list[str]()
    server.on_list = listed.append
    assert ids(source(server)) == ["0"]
    assert listed == [".", "in"]
    assert ids(source(server, glob="**/_spark/**")) == ["4"]


def test_names_that_are_not_utf8_are_left_out_and_counted(server: sftp.Server) -> None:
    server.put("a.csv", b"id\n1\n")
    for name in (b"M\xfcller.txt", b"\xe9t\xe9.csv"):
        (server.folder / os.fsdecode(name)).write_bytes(b"id\n2\n")
    (server.folder / os.fsdecode(b"M\xe4rz")).mkdir()
    made = source(server)
    asked = window(made)
    assert read(made, asked)[0]["id"].tolist() == ["1"]
    assert [warning for warning in asked.context.warnings if warning.startswith("3 names in . are not UTF-8")]


def test_a_refusal_in_another_encoding_is_one_all_the_same(server: sftp.Server) -> None:
    server.put("a.csv", b"id\n1\n")
    server.readable, server.says = False, "Zugriff wird überall verweigert".encode("cp1252")
    with pytest.raises(PermissionDenied, match="give the user the right"):
        ids(source(server))


def test_a_file_that_grows_waits_for_the_next_load(server: sftp.Server) -> None:
    server.put("a.csv", b"id\n1\n")
    server.put("b.csv", b"id\n2\n", at=int(time.time()))
    made = source(server)
    growing = window(made)
    growing.context.sleep = lambda _: server.put("b.csv", b"id\n2\n3\n", at=int(time.time()))
    assert read(made, growing)[0]["id"].tolist() == ["1"]
    assert ids(made, files=growing.context.files) == ["2", "3"]


def test_a_file_that_is_written_to_while_it_is_read_is_read_anew_and_a_removed_one_ends_the_load(server: sftp.Server) -> None:
    server.put("a.csv", b"id\n1\n2\n")
    made, changes = source(server), iter([lambda: server.put("a.csv", b"id\n3\n4\n"), lambda: None])
    server.on_open = lambda _: next(changes)()
    assert ids(made) == ["3", "4"]
    server.on_open = lambda _: (server.folder / "a.csv").unlink(missing_ok=True)
    with pytest.raises(SourceUnavailable, match="removed after it was listed"):
        ids(made)


def test_a_large_file_streams_and_a_larger_one_is_refused(server: sftp.Server) -> None:
    rows = b"".join(b"%d,%s\n" % (n, b"x" * 90) for n in range(100_000))
    server.put("a.csv", b"id,x\n" + rows)
    assert len(ids(source(server))) == 100_000
    with pytest.raises(LimitExceeded, match="raise max_bytes"):
        ids(source(server, max_bytes=1_000_000))


# a real server


@pytest.fixture
def openssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, str, Path]]:
    """OpenSSH's own server as this user, who signs in by a key: its port, its host key and the user's home in it."""
    program, environment = sftp.openssh()
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path / "served"
    folder.mkdir()
    host = tmp_path / "host"
    host.write_text(private(sftp.key(name="host")))
    (tmp_path / "authorized").write_bytes(sftp.key(name="own").export_public_key())
    for path in (host, tmp_path / "authorized"):
        path.chmod(0o600)
    lines = [f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {host}", f"AuthorizedKeysFile {tmp_path / 'authorized'}", "PidFile none",
             "StrictModes no", "UsePAM no", "PasswordAuthentication no", "PermitRootLogin yes", "Subsystem sftp internal-sftp"]  # fmt: skip
    (tmp_path / "config").write_text("\n".join(lines) + "\n")
    with (tmp_path / "log").open("wb") as log:
        command = [*program, "-D", "-e", "-f", str(tmp_path / "config")]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield port, sftp.key(name="host").export_public_key().decode(), folder
    finally:
        process.kill()
        process.wait()


def test_openssh_is_read_as_any_other(openssh: tuple[int, str, Path]) -> None:
    port, host_key, folder = openssh
    for number in range(250):
        (folder / f"{number:03}.csv").write_bytes(b"id\n%d\n" % number)
        os.utime(folder / f"{number:03}.csv", (1_760_000_000, 1_760_000_000))
    user = pwd.getpwuid(os.geteuid()).pw_name
    made = SftpCsv(host="127.0.0.1", port=port, user=user, private_key=secret(private(sftp.key(name="own"))), public_host_key=host_key,
                   prefix=f"{folder}/", glob="*.csv")  # fmt: skip
    assert ids(made) == [str(n) for n in range(250)]
    assert [step.ok for step in made.check()] == [True] * 4
