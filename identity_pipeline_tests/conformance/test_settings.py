"""What a connector's file says: its settings, its secrets, its docstring; and that every type has a connector and a harness."""

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from identity_pipeline import docs
from identity_pipeline.connectors import SOURCE_TYPES, connectors
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.settings import PACKAGE
from identity_pipeline.declarations.source import Source
from identity_pipeline_tests.conformance.harness import TRAITS, Harness, harness_classes
from identity_pipeline_tests.conformance.loader import Loader, searched

SECRET = re.compile(
    r"token|secret|password|passphrase|credential|connection_string|(^|_)(key|pem|jwt)$|api_key|private_key|service_account"
)
STATEMENTS, STATEMENTS_IN_METHODS = 45, 20
IMPORTS = ("identity_pipeline.connectors.base", "identity_pipeline.core", "identity_pipeline.readers")
PUBLIC = re.compile(r"_url$|_id$|^public_|^ambient_")


# the whole


def test_every_connector_has_a_harness_and_every_harness_a_connector() -> None:
    built, harnesses = set(connectors()), set(harness_classes())
    assert built - harnesses == set(), "write conformance/harnesses/<source_type>.py for these connectors"
    assert harnesses - built == set(), "these harnesses have no connector of their name"


def test_every_connector_is_one_of_the_source_types() -> None:
    assert len(set(SOURCE_TYPES)) == len(SOURCE_TYPES) == 22
    assert set(connectors()) == set(SOURCE_TYPES)


def test_the_table_of_source_types_in_the_readme_is_up_to_date() -> None:
    readme = (PACKAGE.parent / "README.md").read_text("utf-8")
    assert docs.table() in readme, "run `python -m identity_pipeline.docs`"
    assert docs.with_table(readme) == readme


# each


def source(harness_class: type[Harness], config: dict[str, Any], **declared: Any) -> Source:
    return Source.model_validate({"name": "harness", "source_type": harness_class.source_type(), "config": config, **declared})


def test_a_harness_states_what_its_source_has_and_why_it_lacks_the_rest(harness_class: type[Harness]) -> None:
    assert harness_class.traits | harness_class.lacking.keys() == TRAITS.keys()
    assert not harness_class.traits & harness_class.lacking.keys()
    assert all(len(why) > 10 for why in harness_class.lacking.values())
    assert harness_class.wire in {"http", "tcp"}
    assert (harness_class.cursor_column is None) == ("cursor" in harness_class.lacking)


def statements(tree: ast.AST) -> int:
    """How many statements there are; docstrings are free."""
    return sum(
        isinstance(node, ast.stmt) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in ast.walk(tree)
    )


def test_a_connector_is_a_short_file_that_says_what_is_read(harness_class: type[Harness]) -> None:
    module = sys.modules[harness_class.connector().__module__]
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    assert statements(tree) <= STATEMENTS
    methods = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert sum(statements(node) - 1 for node in methods) <= STATEMENTS_IN_METHODS  # without the line of its name
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and str(n.module).startswith("identity_pipeline")}
    assert all(str(name).startswith(IMPORTS) for name in imported), "a connector knows its base, the core and the readers"
    first, second, *rest = (module.__doc__ or "").split("\n")
    assert re.fullmatch(r"[A-Z][^:]+: .{10,}\.", first), (
        "the docstring begins with title and contents: 'HubSpot: the contacts of one portal.'"
    )
    assert second == ""
    assert re.search(r"https://\S+", "\n".join(rest)), "the docstring names the vendor's page"
    assert re.search(r"(?i)left out|cursor", "\n".join(rest)), "the docstring says what is left out and which traps the cursor has"


def test_a_connector_names_group_vendor_and_the_fields_of_its_cursors(harness_class: type[Harness]) -> None:
    cls = harness_class.connector()
    assert cls.group in {"sql", "files", "oauth", "api"}
    assert re.fullmatch(r"[a-z][a-z0-9_]*", cls.vendor)
    assert cls.field_map.external_id
    assert cls.field_map.email
    for column in cls.cursor_columns.values():
        assert column.type in {None, "int", "timestamp", "text"}
        assert column.filtered_by in {"source", "us"}
        assert column.overlap >= 0


def test_every_setting_has_help_and_every_secret_is_marked(harness_class: type[Harness]) -> None:
    form = harness_class.connector().settings()
    assert {field.name for field in form} == set(harness_class.connector().model_fields)
    for field in form:
        assert len(field.help) > 10, field.name
        assert field.required or field.default is not None or field.secret, field.name
        if SECRET.search(field.name) and not PUBLIC.search(field.name):
            assert field.secret, f"{field.name} has to be a Secret"


def test_configs_of_earlier_releases_stay_valid(harness_class: type[Harness]) -> None:
    assert harness_class.old_configs, "list what users write"
    for config in harness_class.old_configs:
        source(harness_class, dict(config)).resource()


def test_a_missing_setting_is_named(harness_class: type[Harness]) -> None:
    required = [field.name for field in harness_class.connector().settings() if field.required]
    assert required
    for name in required:
        config = dict(harness_class.old_configs[0])
        for rest in ({k: v for k, v in config.items() if k != name}, {**config, name: None}):
            with pytest.raises(ConfigurationError, match=rf"config\.{name}: is missing"):
                source(harness_class, rest).resource()


def test_an_unknown_setting_is_named(harness_class: type[Harness]) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.flavour: .* known are"):
        source(harness_class, {**harness_class.old_configs[0], "flavour": "sweet"}).resource()


def test_a_setting_of_the_wrong_type_is_named_and_its_value_is_not(harness_class: type[Harness]) -> None:
    for field in harness_class.connector().settings():
        if field.secret:
            continue
        with pytest.raises(ConfigurationError, match=rf"config\.{field.name}\b") as caught:
            source(harness_class, {**harness_class.old_configs[0], field.name: {"canary": "value"}}).resource()
        assert "canary" not in str(caught.value)


def test_a_secret_is_never_taken_literally(harness_class: type[Harness]) -> None:
    for field in harness_class.connector().settings():
        if field.secret:
            with pytest.raises(ConfigurationError, match=rf"config\.{field.name}: is a secret") as caught:
                source(harness_class, {**harness_class.old_configs[0], field.name: "canary-literal"}).resource()
            assert "canary-literal" not in str(caught.value)


def test_a_cursor_that_cannot_be_is_refused(harness_class: type[Harness]) -> None:
    columns = harness_class.connector().cursor_columns
    config = dict(harness_class.old_configs[0])
    if "*" not in columns:
        with pytest.raises(ConfigurationError, match=r"cursor_column: .* cannot use 'shoe_size'"):
            _ = source(harness_class, config, cursor_column="shoe_size", cursor_type="int").cursor_kind
    for name, column in columns.items():
        kind = column.type
        wrong = {"int": "timestamp", "timestamp": "int", "text": "int"}.get(kind or "")
        if wrong:
            with pytest.raises(ConfigurationError, match="cursor_type: "):
                _ = source(harness_class, config, cursor_column=name, cursor_type=wrong).cursor_kind
        if kind is None:
            with pytest.raises(ConfigurationError, match="cursor_type: is missing"):
                _ = source(harness_class, config, cursor_column="updated_at").cursor_kind


def test_a_connector_shows_none_of_its_secrets(loader: Loader) -> None:
    connector = loader.connector()
    searched(loader.harness, [repr(connector), str(connector), f"{connector}", repr([connector])])
    assert loader.harness.canaries
    redacted = loader.opened().redactor.redact(" ".join(loader.harness.canaries))
    assert not [canary for canary in loader.harness.canaries if canary in redacted], "the redactor knows every secret once it is looked up"
