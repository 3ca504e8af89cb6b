"""Tokens of the API."""

import psycopg
import pytest

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.store import tokens


def test_a_token_opens_until_it_is_revoked_or_expires_and_is_kept_as_a_hash_only(database_url: str):
    token = tokens.create(database_url, "ci", "viewer", 30)
    assert tokens.holder(database_url, token)[:2] == ("ci", "viewer")
    assert tokens.holder(database_url, token + "x") is None
    with psycopg.connect(database_url) as connection:
        assert token not in str(connection.execute("select * from identity.tokens").fetchall())
        connection.execute("update identity.tokens set expires_at = now() - interval '1 second'")
    assert tokens.holder(database_url, token) is None
    assert tokens.revoke(database_url, "ci")
    assert not tokens.revoke(database_url, "ci")


def test_a_name_that_is_taken_is_refused_and_the_first_token_stays(database_url: str):
    token = tokens.create(database_url, "ci", "operator", 1)
    with pytest.raises(ConfigurationError, match="already"):
        tokens.create(database_url, "ci", "viewer", 1)
    assert tokens.holder(database_url, token)[1] == "operator"
    assert [row["name"] for row in tokens.listing(database_url)] == ["ci"]
