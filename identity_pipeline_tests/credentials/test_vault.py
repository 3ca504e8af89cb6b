"""The vault and the keyring: secrets that come back whole, and only with their key."""

import base64
import os
import re
import secrets
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.credentials import keyring, vault

CANARY = "canary-secret-4471"


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


@pytest.fixture
def url(identity_env: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The database, with one key in the environment."""
    monkeypatch.setenv(keyring.VARIABLE, _key())
    return database_url


def _run(url: str, statement: str, *values: object) -> list[tuple]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize("secret", ["x", "pä$$ wörd\n\t'\"", "😀" * 1000, "-----BEGIN PRIVATE KEY-----\nabc\n"])
def test_what_was_stored_comes_back(url: str, secret: str):
    vault.store(url, "hub", "token", secret)
    assert vault.reveal(url, "hub") == secret


def test_the_database_holds_nothing_of_the_secret(url: str):
    vault.store(url, "hub", "token", CANARY)
    ((row,),) = _run(url, "select row(c.*)::text from identity.credentials c")
    assert CANARY not in row
    assert CANARY.encode().hex() not in row


def test_a_new_secret_replaces_the_old_one_with_a_new_nonce(url: str):
    seen = set()
    for number in range(5):
        vault.store(url, "hub", "token", CANARY)
        ((version, nonce),) = _run(url, "select version, nonce from identity.credentials")
        seen.add(nonce)
        assert version == number + 1
    assert len(seen) == 5


@pytest.mark.parametrize(
    "forged",
    [
        "update identity.credentials c set (nonce, ciphertext) = (select nonce, ciphertext from identity.credentials where name = 'other')",
        "update identity.credentials set kind = 'oauth' where name = 'hub'",
        "update identity.credentials set version = version + 1 where name = 'hub'",
        "update identity.credentials set ciphertext = set_byte(ciphertext, 0, get_byte(ciphertext, 0) # 1) where name = 'hub'",
        "update identity.credentials set nonce = set_byte(nonce, 11, get_byte(nonce, 11) # 1) where name = 'hub'",
        "update identity.credentials set ciphertext = substr(ciphertext, 1, length(ciphertext) - 1) where name = 'hub'",
        "update identity.credentials set ciphertext = '' where name = 'hub'",
        "update identity.credentials set nonce = '' where name = 'hub'",
    ],
)
def test_a_row_that_was_tampered_with_does_not_open(url: str, forged: str):
    vault.store(url, "hub", "token", CANARY)
    vault.store(url, "other", "token", "another secret")
    _run(url, forged)
    with pytest.raises(ConfigurationError, match="'hub' does not open"):
        vault.reveal(url, "hub")


def test_a_ciphertext_put_back_from_an_older_version_does_not_open(url: str):
    vault.store(url, "hub", "token", "old")
    ((nonce, ciphertext),) = _run(url, "select nonce, ciphertext from identity.credentials")
    vault.store(url, "hub", "token", "new")
    _run(url, "update identity.credentials set nonce = %s, ciphertext = %s", nonce, ciphertext)
    with pytest.raises(ConfigurationError, match="does not open"):
        vault.reveal(url, "hub")


def test_rotation_moves_every_row_to_the_newest_key_and_the_old_one_can_go(url: str, monkeypatch: pytest.MonkeyPatch):
    old, new = os.environ[keyring.VARIABLE], _key()
    for name in ("a", "b", "c"):
        vault.store(url, name, "token", f"secret of {name}")
    monkeypatch.setenv(keyring.VARIABLE, f"{new},{old}")
    assert vault.reveal(url, "a") == "secret of a"
    assert vault.rotate(url) == 3
    assert vault.rotate(url) == 0
    monkeypatch.setenv(keyring.VARIABLE, new)
    assert [vault.reveal(url, name) for name in ("a", "b", "c")] == ["secret of a", "secret of b", "secret of c"]


def test_a_rotation_that_was_killed_is_finished_by_the_next_one(url: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("a", "b", "c"):
        vault.store(url, name, "token", name)
    old = os.environ[keyring.VARIABLE]
    monkeypatch.setenv(keyring.VARIABLE, f"{_key()},{old}")
    script = "import sys; from identity_pipeline.credentials import vault; vault.rotate(sys.argv[1])"
    killed = subprocess.run([sys.executable, "-c", script, url], env=os.environ | {"IDENTITY_FAILPOINT": "rotated:2"}, check=False)
    assert killed.returncode == -9
    assert [vault.reveal(url, name) for name in "abc"] == ["a", "b", "c"]
    assert vault.rotate(url) == 2
    assert [vault.reveal(url, name) for name in "abc"] == ["a", "b", "c"]


def test_a_rotation_of_the_key_file_that_was_killed_goes_on_with_the_key_that_it_made(identity_env: Path, database_url: str):
    for name in ("a", "b", "c"):
        vault.store(database_url, name, "token", name)
    script = "import sys; from identity_pipeline.credentials import vault; vault.rotate(sys.argv[1])"
    killed = subprocess.run([sys.executable, "-c", script, database_url], env=os.environ | {"IDENTITY_FAILPOINT": "rotated:2"}, check=False)
    assert killed.returncode == -9
    new, old = keyring.keys()
    assert [vault.reveal(database_url, name) for name in "abc"] == ["a", "b", "c"]
    vault.store(database_url, "d", "token", "d")
    assert vault.rotate(database_url) == 2
    assert keyring.keys() == [new]
    assert keyring._parsed(keyring.old_keys().read_text().strip(), "") == [old]
    assert [vault.reveal(database_url, name) for name in "abcd"] == ["a", "b", "c", "d"]


def test_what_is_stored_while_the_key_changes_has_the_new_key(identity_env: Path, database_url: str, monkeypatch: pytest.MonkeyPatch):
    """The old one may be gone when it is written."""
    vault.store(database_url, "a", "token", "a")
    sealed = vault.sealed

    def late(*values: object) -> dict:
        made = sealed(*values)
        monkeypatch.setattr(vault, "sealed", sealed)
        vault.rotate(database_url)
        return made

    monkeypatch.setattr(vault, "sealed", late)
    vault.store(database_url, "b", "token", "b")
    assert [vault.reveal(database_url, name) for name in "ab"] == ["a", "b"]


def test_without_its_key_a_credential_says_which_key_is_missing(url: str, monkeypatch: pytest.MonkeyPatch):
    vault.store(url, "hub", "token", CANARY)
    ((key_id,),) = _run(url, "select key_id from identity.credentials")
    monkeypatch.setenv(keyring.VARIABLE, _key())
    with pytest.raises(ConfigurationError, match=key_id):
        vault.reveal(url, "hub")
    assert len(vault.unreadable(url)) == 1


@pytest.mark.parametrize("wrong", ["nonsense", base64.b64encode(b"short").decode(), "{key},", "{key},x"])
def test_a_wrong_key_is_named_by_its_place_and_not_shown(url: str, monkeypatch: pytest.MonkeyPatch, wrong: str):
    wrong = wrong.format(key=_key())
    monkeypatch.setenv(keyring.VARIABLE, wrong)
    with pytest.raises(ConfigurationError, match=r"key [12] is not the base64") as error:
        keyring.keys()
    assert wrong not in str(error.value)


def test_without_a_key_a_file_is_made_that_only_its_owner_reads(identity_env: Path, database_url: str, caplog: pytest.LogCaptureFixture):
    assert keyring.keys() == []
    vault.store(database_url, "hub", "token", CANARY)
    file = identity_env / "encryption.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert str(file) in caplog.text
    assert file.read_text().strip() not in caplog.text
    assert vault.reveal(database_url, "hub") == CANARY
    assert [path.name for path in identity_env.iterdir()] == ["encryption.key"]


def test_a_key_file_that_others_may_read_is_refused(identity_env: Path, database_url: str):
    vault.store(database_url, "hub", "token", CANARY)
    (identity_env / "encryption.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        vault.reveal(database_url, "hub")


@pytest.mark.parametrize("name", ["", "../x", "a b", "-a", "a" * 101, "a\n"])
def test_a_name_that_is_not_one_is_refused(url: str, name: str):
    with pytest.raises(ConfigurationError, match="a name is"):
        vault.store(url, name, "token", CANARY)


def test_a_credential_that_is_not_there_says_how_to_store_it(url: str):
    with pytest.raises(ConfigurationError, match="credentials set hub"):
        vault.reveal(url, "hub")


def test_key_ids_tell_nothing_of_the_key(url: str):
    (key,) = keyring.keys()
    assert re.fullmatch(r"[0-9a-f]{16}", key.id)
    assert key.id not in key.value.hex()
    assert "value" not in repr(key)
