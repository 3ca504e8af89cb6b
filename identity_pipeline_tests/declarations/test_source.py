"""A declared source becomes a connector with its values looked up."""

from collections.abc import Callable

import pytest
from pydantic import field_validator

from identity_pipeline.connectors.base import Connector, Secret, setting
from identity_pipeline.core.errors import ConfigurationError, CredentialError
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.core.secret import Credential, Env
from identity_pipeline.declarations import source as declared
from identity_pipeline.declarations.opened import opened
from identity_pipeline.declarations.source import Source, differing


class Picky(Connector):
    """A connector that refuses some values."""

    group = "api"
    vendor = "picky"
    field_map = FieldMap()
    token: Secret = setting("A token")
    place: str = setting("A place", default="here")
    most: int = setting("A number", default=7)

    @field_validator("place")
    @classmethod
    def _usable(cls, value: str) -> str:
        if value.startswith("canary"):
            raise ValueError("a place begins with a capital letter")
        return value


@pytest.fixture
def crm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Source]:
    """A source of that connector with these settings."""
    monkeypatch.setattr(declared, "connector", lambda _: Picky)
    monkeypatch.setenv("TOKEN", "Abcdef")
    return lambda **config: Source(name="crm", source_type="picky", config={"token": {"env": "TOKEN"}} | config)


def nowhere() -> str:
    raise AssertionError("no credential is named")


def test_values_from_the_environment_are_looked_up(crm):
    redactor = Redactor()
    found = crm(place={"env": "TOKEN"}).connect(redactor, nowhere)
    assert (found.token.token(), found.place) == ("Abcdef", "Abcdef")
    assert redactor.redact("Abcdef") == "***"


def test_a_reference_is_a_value_and_a_text_that_looks_like_one_is_a_text(crm, monkeypatch):
    monkeypatch.setenv("TOKEN", "env:credential:x")
    source = crm(place="credential:x")
    assert source.references == {"token": Env("TOKEN")}
    found = source.connect(Redactor(), nowhere)
    assert (found.token.token(), found.place) == ("env:credential:x", "credential:x")


def test_dagster_is_shown_where_a_value_is_kept_and_never_the_value(crm):
    shown = crm(place={"env": "TOKEN"}).resource()
    assert (shown.token.reference, shown.place) == (Env("TOKEN"), "{env: TOKEN}")
    with pytest.raises(ConfigurationError, match="not looked up here"):
        shown.token.token()
    assert crm(token={"credential": "hub"}).resource().token.reference == Credential("hub")


@pytest.mark.parametrize("name", ["", "1", "a b", 7, None, {"x": "y"}])
def test_a_reference_without_a_usable_name_is_refused(crm, name):
    with pytest.raises(ValueError, match="takes the name of an environment variable"):
        crm(token={"env": name})


def test_a_reference_is_for_secrets_and_texts(crm):
    with pytest.raises(ConfigurationError, match=r"config\.most: takes integer: write it here"):
        crm(most={"env": "TOKEN"}).resource()


def test_a_variable_that_is_not_set_is_named(crm, monkeypatch):
    monkeypatch.delenv("TOKEN")
    with pytest.raises(ConfigurationError, match=r"^crm: config\.token is taken from the environment variable TOKEN, which is not set"):
        crm().connect(Redactor(), nowhere)


def test_a_value_that_does_not_fit_is_named_but_not_shown(crm, monkeypatch):
    monkeypatch.setenv("PLACE", "canary-place")
    with pytest.raises(ConfigurationError, match=r"^crm: config\.place: a place begins") as error:
        crm(place={"env": "PLACE"}).connect(Redactor(), nowhere)
    assert "canary" not in str(error.value)


def test_secrets_are_looked_up_only_for_a_connection(crm, monkeypatch):
    monkeypatch.delenv("TOKEN")
    monkeypatch.setenv("PLACE", "There")
    found = crm(place={"env": "PLACE"}).connect(Redactor(), nowhere, secrets=False)
    assert found.place == "There"
    with pytest.raises(ConfigurationError, match="not looked up here"):
        found.token.token()


def test_an_error_that_quotes_a_secret_leaves_without_it(crm):
    with pytest.raises(CredentialError, match=r"^refused \*\*\*$"), opened(crm(), nowhere).redacting():
        raise CredentialError("refused Abcdef")


def test_settings_that_a_run_changed_are_named(crm):
    ours = crm().resource()
    assert differing(ours, crm().resource()) == []
    assert differing(ours, crm(place="Elsewhere", token={"env": "OTHER"}).resource()) == ["token", "place"]


@pytest.mark.parametrize("name", ["sig", "X-Amz-Signature", "X-Goog-Signature", "token"])
def test_a_signed_address_is_never_taken_literally(crm, name):
    with pytest.raises(ConfigurationError, match=r"config\.place: is a signed address") as error:
        crm(place=f"https://files.example.org/people.csv?{name}=canary").resource()
    assert "canary" not in str(error.value)
    assert crm(place="https://files.example.org/people.csv?format=csv").resource().place


@pytest.mark.parametrize("source_type", ["postgres_identity", "mysql_identity", "snowflake_identity", "bigquery_identity"])
def test_the_column_of_the_id_is_named_in_one_place(source_type: str):
    def source(mapping: dict, **config: object) -> Source:
        return Source(name="crm", source_type=source_type, config=config, mapping=mapping)

    assert source({}, id_column="person").field_map.external_id == ("person",)
    assert source({"external_id": "person"}, id_column="person").field_map.external_id == ("person",)
    assert source({"external_id": "person"}).field_map.external_id == ("person",)
    assert "id_column" in {setting.name for setting in source({}).connector.settings()}
    with pytest.raises(
        ConfigurationError, match=r"mapping: external_id is no, and config\.id_column names person: leave it out of mapping"
    ):
        _ = source({"external_id": "no"}, id_column="person").field_map
