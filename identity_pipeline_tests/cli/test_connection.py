"""A declared source becomes a connector with its values looked up."""

from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError, field_validator

from identity_pipeline.cli.connection import connect, redacting, unconnected
from identity_pipeline.connectors.base import Connector, secret, setting
from identity_pipeline.core.errors import ConfigurationError, CredentialError


class Picky(Connector):
    """A connector that refuses some values."""

    token: str = secret("A token")
    place: str = setting("A place", default="here")

    @field_validator("token")
    @classmethod
    def _usable(cls, value: str) -> str:
        if value.startswith("canary"):
            raise ValueError("a token begins with a capital letter")
        return value


def _source(**config: dict[str, str]) -> Any:
    values = {name: dg.EnvVar(value["env"]) for name, value in config.items()}
    return SimpleNamespace(name="crm", source_type="picky", config=config, connector=Picky, resource=lambda: Picky(**values))


def test_values_from_the_environment_are_looked_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOKEN", "Abc")
    found = connect(_source(token={"env": "TOKEN"}))
    assert found.secrets() == ("Abc",)


def test_a_value_that_does_not_fit_is_named_but_not_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOKEN", "canary-token")
    with pytest.raises(ConfigurationError, match=r"^crm: config\.token: a token begins") as error:
        connect(_source(token={"env": "TOKEN"}))
    assert "canary" not in str(error.value)


def test_a_run_that_starts_with_such_a_value_does_not_show_it_either(monkeypatch: pytest.MonkeyPatch):
    """Dagster keeps the text of this error in its event log."""
    monkeypatch.setenv("TOKEN", "canary-token")
    with pytest.raises(ValidationError) as error:
        Picky(token=dg.EnvVar("TOKEN")).process_config_and_initialize()
    assert "canary" not in str(error.value)


def test_secrets_are_looked_up_only_for_a_connection(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TOKEN", raising=False)
    monkeypatch.setenv("PLACE", "there")
    assert unconnected(_source(token={"env": "TOKEN"})).place == "here"
    with pytest.raises(ConfigurationError, match="TOKEN"):
        unconnected(_source(token={"env": "TOKEN"}, place={"env": "PLACE"}))


def test_an_error_that_quotes_a_secret_leaves_without_it():
    with pytest.raises(CredentialError, match=r"^refused \*\*\*$"), redacting(Picky(token="Abcdef")):
        raise CredentialError("refused Abcdef")
