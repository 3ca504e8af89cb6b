"""A declaration on its way to its file."""

import stat
from pathlib import Path

import pytest
import yaml

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.declarations.folder import load
from identity_pipeline.operations import drafts
from identity_pipeline.operations.drafts import Draft

FILE = """\
# who is read
sources:
  # the newsletter
  - name: one
    source_type: csv_url
    config:
      url: {env: ONE_URL}   # signed
      skip_lines: 2
    schedule: "0 3 * * *"
  - name: two
    source_type: csv_url
    config: {url: "https://files.example/two.csv"}
"""
ONE = {"name": "one", "source_type": "csv_url", "config": {"url": {"env": "ONE_URL"}, "skip_lines": 3}, "schedule": "0 3 * * *"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "all.yaml").write_text(FILE)
    return tmp_path


def test_only_what_changed_is_written_and_comments_order_and_quotes_stay(folder: Path):
    change = drafts.change(folder, ONE, "one")
    change.write(change.seen)
    assert (folder / "all.yaml").read_text() == FILE.replace("skip_lines: 2", "skip_lines: 3")
    assert change.difference == ["@@ -5,7 +5,7 @@", *change.difference[1:]]
    assert [line for line in change.difference if line.startswith(("+", "-"))] == ["-      skip_lines: 2", "+      skip_lines: 3"]


def test_a_declaration_that_says_the_same_changes_nothing(folder: Path):
    assert drafts.change(folder, ONE | {"config": {"url": {"env": "ONE_URL"}, "skip_lines": 2}}, "one").difference == []


def test_a_file_that_was_changed_meanwhile_is_not_overwritten(folder: Path):
    seen = drafts.change(folder, ONE, "one").seen
    by_hand = FILE.replace("# who", "# WHO")
    (folder / "all.yaml").write_text(by_hand)
    with pytest.raises(ConfigurationError, match=r"all\.yaml was changed meanwhile"):
        drafts.change(folder, ONE, "one").write(seen)
    assert (folder / "all.yaml").read_text() == by_hand


def test_a_new_source_gets_a_file_of_its_own_and_a_name_that_is_taken_is_refused(folder: Path):
    new = {"name": "three", "source_type": "csv_url", "config": {"url": "https://files.example/three.csv"}, "default_region": "NO"}
    change = drafts.change(folder, new)
    change.write("new")
    assert load(folder).sources["three"].default_region == "NO"  # which YAML 1.1 reads as false without its quotes
    with pytest.raises(ConfigurationError, match=r"^name: three is the name of another source"):
        drafts.change(folder, new)
    (folder / "four.yaml").write_text("sources: []\n")
    with pytest.raises(ConfigurationError, match=r"^name: four\.yaml is there already"):
        drafts.change(folder, new | {"name": "four"})


def test_a_source_that_is_taken_out_leaves_the_others_and_an_empty_file_goes(folder: Path):
    for name, left in (("two", ["one"]), ("one", None)):
        change = drafts.removal(folder, name)
        change.write(change.seen)
        path = folder / "all.yaml"
        assert (list(load(folder).sources) if path.exists() else None) == left


def test_a_file_is_written_whole_with_the_rights_that_it_had(folder: Path):
    (folder / "all.yaml").chmod(0o640)
    change = drafts.change(folder, ONE, "one")
    change.write(change.seen)
    assert stat.S_IMODE((folder / "all.yaml").stat().st_mode) == 0o640
    assert [path.name for path in folder.iterdir()] == ["all.yaml"]


def test_lists_that_do_not_stand_in_stay_so(folder: Path):
    flat = "sources:\n- name: one\n  source_type: csv_url\n  config:\n    url: https://files.example/1.csv\n    skip_lines: 2\n"
    (folder / "all.yaml").write_text(flat)
    change = drafts.change(
        folder, {"name": "one", "source_type": "csv_url", "config": {"url": "https://files.example/1.csv", "skip_lines": 3}}, "one"
    )
    assert change.after == flat.replace("skip_lines: 2", "skip_lines: 3")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"config": {}}, r"^config\.url: is missing"),
        ({"config": {"url": "https://x.example/a.csv", "skip_lines": -1}}, r"^config\.skip_lines: "),
        ({"name": "ingest"}, r"^name: 'ingest' has a meaning of its own"),
        ({"schedule": "often"}, r"^schedule: is not a cron"),
    ],
)
def test_what_is_wrong_is_said_with_its_field_first(wrong: dict, said: str):
    with pytest.raises(ConfigurationError, match=said):
        Draft(ONE | wrong).source()


@pytest.mark.parametrize(
    "secret", ["sk_live_" + "a1B2" * 6, "pat-na1-" + "0" * 30, "AKIA" + "Q" * 16, "https://u:p4ss@host/x", "a" * 20 + "B1" * 10]
)
def test_what_looks_like_a_secret_is_seen(secret: str):
    assert drafts.looks_secret(secret)


@pytest.mark.parametrize("text", ["https://api.hubapi.com", "updated_at", "public.customers", "Europe/Berlin", "people/2026/*.csv", ""])
def test_what_does_not_is_not(text: str):
    assert not drafts.looks_secret(text)


def test_an_entry_reads_back_as_what_it_was():
    assert yaml.safe_load(drafts.text_of(ONE | {"mapping": {"email": ["a", "b"]}})) == ONE | {"mapping": {"email": ["a", "b"]}}
