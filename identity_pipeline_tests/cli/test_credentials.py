"""`identity-pipeline credentials`."""

import base64
import os
import secrets
from pathlib import Path

import pytest

from identity_pipeline.credentials import keyring, vault
from identity_pipeline_tests.cli.workplace import rows, run

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
