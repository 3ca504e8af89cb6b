"""API tokens on the command line."""

from pathlib import Path

import pytest

from identity_pipeline.store import tokens
from identity_pipeline_tests.cli.workplace import rows, run


def test_a_token_is_printed_once_and_opens_until_it_is_revoked(identity_env: Path, database_url: str):
    made = run("tokens", "create", "ci", "--role", "operator", "--days", "3")
    token = made.stdout.strip()
    assert tokens.holder(database_url, token)[:2] == ("ci", "operator")
    (listed,) = rows("tokens", "list")
    assert (listed["name"], listed["role"], token in str(listed)) == ("ci", "operator", False)
    assert run("tokens", "revoke", "ci").exit_code == 0
    assert tokens.holder(database_url, token) is None
    again = run("tokens", "revoke", "ci")
    assert (again.exit_code, "there is no token 'ci'" in again.stderr) == (1, True)


@pytest.mark.parametrize("way", ["none", "oidc", "magic"])
def test_a_way_to_sign_in_that_cannot_be_ends_the_server_before_it_listens(identity_env: Path, monkeypatch: pytest.MonkeyPatch, way: str):
    monkeypatch.setenv("IDENTITY_AUTH", way)
    done = run("serve", "--host", "0.0.0.0", "--port", "39999", "--no-daemon")
    assert done.exit_code == 1
    assert "IDENTITY_AUTH" in done.stderr
