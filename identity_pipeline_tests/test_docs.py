"""What the documentation says of connectors is what they are."""

import ast
import dataclasses
import re
from functools import cache
from pathlib import Path

import pytest

from identity_pipeline import docs
from identity_pipeline.connectors import connector, modules
from identity_pipeline.connectors.base import RestConnector
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.settings import PACKAGE
from identity_pipeline_tests.cli.workplace import run

PAGES = PACKAGE.parent / "docs" / "sources"
HEADINGS = ["Before you start", "Settings", "What is read", "Deletions and merges", "Limits", "Troubleshooting"]
ELLIPSIS = "…"


@cache
def texts() -> str:
    """Every text in the package's code; what a message puts into it is an ellipsis."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else ELLIPSIS for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def section(text: str, heading: str) -> str:
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_every_source_type_has_a_page_and_every_page_a_source_type() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(modules())


def test_the_page_about_declarations_is_up_to_date() -> None:
    text = (PAGES.parent / "declarations.md").read_text("utf-8")
    assert docs.with_fields(text) == text, "run `python -m identity_pipeline.docs`"
    assert all(f"`{field.name}`" in text for field in dataclasses.fields(FieldMap) if field.name != "deleted_when")


@pytest.mark.parametrize("source_type", modules())
def test_a_page_is_up_to_date(source_type: str) -> None:
    text = docs.page(source_type).read_text("utf-8")
    assert docs.block(connector(source_type)) in text, "run `python -m identity_pipeline.docs`"
    assert docs.with_block(text, connector(source_type)) == text


@pytest.mark.parametrize("source_type", modules())
def test_a_page_says_what_it_has_to(source_type: str) -> None:
    text = docs.page(source_type).read_text("utf-8")
    assert text.startswith(f"# {source_type}: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert all(len(section(text, heading)) > 80 for heading in HEADINGS)


@pytest.mark.parametrize("source_type", modules())
def test_a_page_names_every_cursor_where_it_tells_their_traps(source_type: str) -> None:
    told = section(docs.page(source_type).read_text("utf-8"), "What is read")
    for name in connector(source_type).cursor_columns:
        assert name == "*" or f"`{name}`" in told


@pytest.mark.parametrize("source_type", modules())
def test_the_messages_that_a_page_explains_are_ours(source_type: str) -> None:
    told = section(docs.page(source_type).read_text("utf-8"), "Troubleshooting")
    messages = re.findall(r"^\| `(.+?)` \|", told, re.MULTILINE)
    assert len(messages) >= 3
    for message in messages:
        assert all(part.strip() in texts() for part in message.split(ELLIPSIS)), message


@pytest.mark.parametrize("source_type", [name for name in modules() if issubclass(connector(name), RestConnector)])
def test_what_a_vendor_refuses_with_words_that_we_know_is_explained(source_type: str) -> None:
    cls = connector(source_type)
    assert issubclass(cls, RestConnector)
    told = section(docs.page(source_type).read_text("utf-8"), "Troubleshooting")
    for code, known in cls.errors.known.items():
        assert not known.advice or known.advice in told, f"{code}: {known.advice}"


@pytest.mark.parametrize("source_type", modules())
def test_the_command_line_leads_to_the_page(source_type: str) -> None:
    shown = run("sources", "types", source_type).stdout
    assert Path(re.search(r"all about it: (\S+)", shown)[1]).read_text("utf-8").startswith(f"# {source_type}: ")  # type: ignore[index]
