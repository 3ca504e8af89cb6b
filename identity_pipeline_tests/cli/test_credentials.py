"""`identity-pipeline credentials`."""

import base64
import os
import secrets
import socket
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import requests

from identity_pipeline.credentials import grant, keyring, vault
from identity_pipeline_tests.cli.workplace import declare, rows, run
from identity_pipeline_tests.servers.oauth_server import OAuthServer, serve

CANARY = "canary-secret-4471"


@pytest.fixture
def url(identity_env: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The database, with one key in the environment."""
    monkeypatch.setenv(keyring.VARIABLE, base64.b64encode(secrets.token_bytes(32)).decode())
    return database_url


def test_set_reads_standard_input_or_a_variable_and_never_shows_the_secret(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HUB_SECRET", f"{CANARY}-env")
    shown = [
        run("credentials", "set", "piped", given=f"{CANARY}\n"),
        run("credentials", "set", "from_env", "--from-env", "HUB_SECRET", "--kind", "password"),
        run("credentials", "list"),
        run("credentials", "list", "--json"),
        run("credentials", "rotate"),
        run("credentials", "delete", "nobody"),
    ]
    assert [done.exit_code for done in shown] == [0, 0, 0, 0, 0, 1]
    assert CANARY not in "".join(done.output for done in shown)
    assert vault.reveal(url, "piped") == CANARY
    assert vault.reveal(url, "from_env") == f"{CANARY}-env"
    assert [(row["name"], row["kind"], row["version"]) for row in rows("credentials", "list")] == [
        ("from_env", "password", 1), ("piped", "api_key", 1),
    ]  # fmt: skip


def test_nothing_is_stored_from_an_empty_input_or_a_variable_that_is_not_set(url: str):
    assert run("credentials", "set", "hub", given="").exit_code == 1
    assert run("credentials", "set", "hub", "--from-env", "NO_SUCH_VARIABLE").exit_code == 1
    assert run("credentials", "set-app", "google", "--client-id", "1234", given="").exit_code == 1
    assert rows("credentials", "list") == []


def test_rotate_says_whether_there_was_a_key_to_rotate_to(url: str, monkeypatch: pytest.MonkeyPatch):
    vault.store(url, "hub", "token", CANARY)
    assert f"{keyring.VARIABLE} holds one key" in run("credentials", "rotate").stderr
    monkeypatch.setenv(keyring.VARIABLE, f"{base64.b64encode(secrets.token_bytes(32)).decode()},{os.environ[keyring.VARIABLE]}")
    assert "1 encrypted again" in run("credentials", "rotate").stderr


def test_rotate_makes_a_new_key_in_the_key_file_and_puts_the_old_one_aside(
    identity_env: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(keyring.VARIABLE, raising=False)
    vault.store(database_url, "hub", "token", CANARY)
    before = keyring.key_file().read_text()
    for _ in range(2):
        said = run("credentials", "rotate").stderr
        assert "1 encrypted again with a new key" in said
        assert str(keyring.old_keys()) in said
    [key] = keyring.keys()
    assert [row["key_id"] for row in rows("credentials", "list")] == [key.id]
    assert before.strip() in keyring.old_keys().read_text().split()
    assert len(keyring.old_keys().read_text().split()) == 2
    assert {path.stat().st_mode & 0o777 for path in identity_env.iterdir()} == {0o600}
    assert vault.reveal(database_url, "hub") == CANARY


def test_delete_deletes(url: str):
    vault.store(url, "hub", "token", CANARY)
    assert run("credentials", "delete", "hub").exit_code == 0
    assert rows("credentials", "list") == []


def test_a_file_is_stored_whole_as_a_key_file(url: str, tmp_path: Path):
    file = tmp_path / "key.pem"
    file.write_bytes(b"-----BEGIN\n\xff\r\n-----END\n\n")
    assert run("credentials", "set", "warehouse", "--from-file", str(file)).exit_code == 0
    assert vault.reveal(url, "warehouse").encode("utf-8", "surrogateescape") == file.read_bytes()
    assert rows("credentials", "list")[0]["kind"] == "key_file"
    assert "check the path" in run("credentials", "set", "other", "--from-file", str(tmp_path / "none")).stderr


def test_a_credential_that_a_source_names_is_deleted_by_force_only(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_SOURCES", str(tmp_path / "sources"))
    vault.store(url, "crm", "api_key", CANARY)
    config = {"connection_string": {"credential": "crm"}, "table": "people"}
    declare(tmp_path / "sources", {"name": "people", "source_type": "postgres_identity", "config": config})
    refused = run("credentials", "delete", "crm")
    assert (refused.exit_code, "named by people" in refused.stderr) == (1, True)
    assert run("credentials", "delete", "crm", "--force").exit_code == 0
    assert rows("credentials", "list") == []


@pytest.fixture
def server(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OAuthServer]:
    """An OAuth server whose app is stored as Google's."""
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    with socket.socket() as ear:
        ear.bind(("127.0.0.1", 0))
        monkeypatch.setattr(grant, "LOOPBACK_PORT", ear.getsockname()[1])
    with serve(OAuthServer()) as made:
        made.redirects = [grant.redirect_uri(), "http://localhost:1717/oauth/callback"]
        addresses = ("--authorize-url", made.authorize_url, "--token-url", made.token_url)
        stored = run("credentials", "set-app", "google", "--client-id", made.client_id, *addresses, given=f"{made.client_secret}\n")
        assert (stored.exit_code, grant.redirect_uri() in stored.stderr) == (0, True)
        yield made


def test_connect_opens_a_browser_and_hears_what_it_is_led_back_with(url: str, server: OAuthServer, monkeypatch: pytest.MonkeyPatch):
    def browser(address: str) -> bool:
        threading.Thread(target=lambda: requests.get(address, timeout=20)).start()
        return True

    monkeypatch.setattr(webbrowser, "open", browser)
    done = run("credentials", "connect", "google_contacts", "ada")
    assert (done.exit_code, "connected as ada@nordwind-demo.com" in done.stderr) == (0, True), done.output
    [ada, app] = rows("credentials", "list")
    assert (app["name"], app["kind"], app["account"]) == ("app.google", "oauth_app", server.client_id)
    assert (ada["kind"], ada["status"], ada["account"]) == ("oauth_grant", "ok", "ada@nordwind-demo.com")
    tested = run("credentials", "test", "ada")
    assert (tested.exit_code, "gives ada@nordwind-demo.com a token" in tested.stderr) == (0, True)
    assert "app.google" in run("credentials", "delete", "app.google").stderr, "while something was granted to it"
    server.revoke()
    vault.store(url, "other", "api_key", "x")
    with psycopg.connect(url) as connection:
        connection.execute("update identity.credentials set valid_until = now()")
    dead = run("credentials", "test", "ada")
    assert (dead.exit_code, "credentials connect google_contacts ada" in dead.stderr) == (1, True)
    assert [row["status"] for row in rows("credentials", "list")] == ["needs_reconnect", "ok", "ok"]
    assert "canary" not in "".join(each.output for each in (done, tested, dead))


def test_connect_takes_a_pasted_address_where_there_is_no_browser(url: str, server: OAuthServer):
    command = [sys.executable, "-c", "from identity_pipeline.cli import main; main()", "credentials", "connect", "google_contacts", "ada"]
    with subprocess.Popen(
        [*command, "--no-browser"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as it:
        assert it.stdin
        assert it.stdout
        led = requests.get(it.stdout.readline().strip(), allow_redirects=False, timeout=10).headers["Location"]
        _, said = it.communicate(f"{led}\n", timeout=60)
    assert (it.returncode, "connected as ada@nordwind-demo.com" in said) == (0, True), said
    assert "write {credential: ada}" in said
