"""A CSV file at an https address, read as a load reads it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from identity_pipeline.connectors import connector
from identity_pipeline.connectors.csv_url import CsvUrl
from identity_pipeline.core.cursor import Cursor
from identity_pipeline.core.cursor_filter import CursorCounts
from identity_pipeline.core.errors import ConfigurationError, LimitExceeded, SourceRejected
from identity_pipeline.core.fieldmap import REJECTED
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.normalise import canonicalise
from identity_pipeline.readers.names import HEADERS, spellings
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.servers.files import Authority, FileServer

BODY = (
    "Customer ID;E-Mail;First Name;Geändert am\r\n"
    "007;ann@example.com;Ann;13.04.2026 10:00\r\n"
    "008;bob@example.com;Bob;14.04.2026 10:00\r\n"
    "009;cid@example.com;Cid;\r\n"
).encode("cp1252")
PATH = "/export/contacts.csv"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """An https server whose authority we trust."""
    authority = Authority(tmp_path)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1,localhost")
    with FileServer(authority) as server:
        server.put(PATH, BODY, etag='"1"')
        yield server


def load(source: CsvUrl, asked: Window) -> tuple[pd.DataFrame, CursorCounts]:
    """All records of one load, cut at the window as a load does it."""
    return reading.read(source, asked)


def window(source: CsvUrl | None = None, **options: Any) -> Window:
    return reading.window(source or CsvUrl(url="https://example.org"), **options)


def mark(counts: CursorCounts) -> str | None:
    return counts.mark(Cursor("at", "timestamp"))


CURSOR = {"cursor_column": "Geändert am"}
GERMAN = {"cursor_format": "%d.%m.%Y %H:%M", "cursor_timezone": "Europe/Berlin"}


def test_a_file_is_read_as_text_with_what_was_found_out_about_it(server: FileServer) -> None:
    asked = window()
    found, _ = load(CsvUrl(url=server.url + PATH), asked)
    assert found["Customer ID"].tolist() == ["007", "008", "009"]
    assert list(found.columns) == ["Customer ID", "E-Mail", "First Name", "Geändert am"]
    assert "read as cp1252" in asked.context.warnings[0]
    assert asked.context.bytes_read == len(BODY)


def test_the_cursor_is_read_by_its_format_in_its_time_zone(server: FileServer) -> None:
    source = CsvUrl(url=server.url + PATH, **GERMAN)
    found, cut = load(source, window(source, **CURSOR, lower="2026-04-14T08:00:00Z"))
    assert found["Customer ID"].tolist() == ["008", "009"], "the tie at the mark, and the record without a cursor value"
    assert (mark(cut), cut.filtered, cut.null_cursor) == ("2026-04-14T08:00:00Z", 1, 1)
    assert load(source, window(source, **CURSOR, lower="2026-04-14T08:00:01Z"))[0]["Customer ID"].tolist() == ["009"]


@pytest.mark.parametrize("form", ["%d.%m.%Y %H:%M:%S.%f", "%H:%M", "%d.%m", "%Q", "nonsense", "%d.%m.%Y %Z"])
def test_a_format_that_reads_no_dates_is_refused(server: FileServer, form: str) -> None:
    with pytest.raises(ConfigurationError, match="cursor_format"):
        CsvUrl(url=server.url + PATH, cursor_format=form).read(window())


def test_a_format_may_hold_the_zone(server: FileServer) -> None:
    server.put(PATH, b"id,at\n1,13.04.2026 10:00 +0200\n2,13.04.2026 10:00 -0500\n")
    source = CsvUrl(url=server.url + PATH, cursor_format="%d.%m.%Y %H:%M %z", cursor_timezone="Asia/Tokyo")
    found, cut = load(source, window(source, cursor_column="at", cursor_type="timestamp", lower="2026-04-13T08:00:01Z"))
    assert found["id"].tolist() == ["2"]
    assert mark(cut) == "2026-04-13T15:00:00Z"


def test_a_time_zone_that_is_none_is_refused(server: FileServer) -> None:
    with pytest.raises(ConfigurationError, match="Mars/Olympus"):
        CsvUrl(url=server.url + PATH, cursor_timezone="Mars/Olympus").read(window())


def test_without_a_format_a_date_with_two_meanings_is_no_cursor_value(server: FileServer) -> None:
    server.put(PATH, b"id,at\n1,01/02/2026\n2,2026-04-13\n")
    _, cut = load(CsvUrl(url=server.url + PATH), window(cursor_column="at", cursor_type="timestamp"))
    assert (mark(cut), cut.null_cursor) == ("2026-04-13T00:00:00Z", 1)


def test_an_unchanged_file_yields_nothing_and_keeps_its_version(server: FileServer) -> None:
    source = CsvUrl(url=server.url + PATH + "?signature=SECRET")
    first = window()
    assert len(load(source, first)[0]) == 3
    assert list(first.context.files) == [server.url + PATH]
    second = window(files=first.context.files)
    assert load(source, second)[0].empty
    assert (second.context.bytes_read, second.context.files, second.context.files_unchanged) == (0, {}, 1)
    assert len(load(source, window(files=first.context.files, full_refresh=True))[0]) == 3


@pytest.mark.parametrize("change", [{"delimiter": ";"}, {"encoding": "latin-1"}, {"quote": "'"}, GERMAN])
def test_an_unchanged_file_is_read_again_when_it_is_to_be_read_otherwise(server: FileServer, change: dict[str, str]) -> None:
    first = window()
    load(CsvUrl(url=server.url + PATH), first)
    assert len(load(CsvUrl(url=server.url + PATH, **change), window(files=first.context.files))[0]) == 3


def test_a_read_that_was_given_up_leaves_no_version(server: FileServer) -> None:
    server.put(PATH, b'id,name\n1,Ann\n2,x"y\n3,"open\n4,z\n')
    asked = window()
    with pytest.raises(SourceRejected, match="line 4 opens a quote"):
        load(CsvUrl(url=server.url + PATH), asked)
    assert asked.context.files == {}


def test_a_row_that_cannot_be_read_carries_its_reason(server: FileServer) -> None:
    server.put(PATH, b"id,email\n1,a@example.com,stray\n2,b@example.com\n")
    found, _ = load(CsvUrl(url=server.url + PATH), window())
    assert found[REJECTED].tolist()[0] == "extra_cells: line 2 has 3 cells, the header has 2"
    assert pd.isna(found[REJECTED].tolist()[1])
    assert found["_extra"].tolist()[0] == '["stray"]'


def test_the_size_limit_is_a_setting_with_a_bound(server: FileServer) -> None:
    with pytest.raises(LimitExceeded, match="raise max_bytes"):
        load(CsvUrl(url=server.url + PATH, max_bytes=len(BODY) - 1), window())
    assert len(load(CsvUrl(url=server.url + PATH, max_bytes=len(BODY)), window())[0]) == 3
    for wrong in (0, 10**10):
        with pytest.raises(ValueError, match="max_bytes"):
            CsvUrl(url=server.url + PATH, max_bytes=wrong)
    assert CsvUrl(url=server.url).max_bytes == 50_000_000


@pytest.mark.parametrize("setting", [{"delimiter": ";;"}, {"encoding": "nonsense"}, {"quote": "''"}, {"escape": ";", "delimiter": ";"}])
def test_a_dialect_that_cannot_be_is_refused(server: FileServer, setting: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        CsvUrl(url=server.url + PATH, **setting).read(window())


def test_a_file_without_header_has_numbered_fields(server: FileServer) -> None:
    server.put(PATH, b"1|'a|b'|\n", content_type="text/plain; charset=utf-8")
    found, _ = load(CsvUrl(url=server.url + PATH, header=False, delimiter="|", quote="'"), window())
    assert pa.Table.from_pandas(found, preserve_index=False).to_pylist() == [{"column_1": "1", "column_2": "a|b", "column_3": None}]


def test_a_connection_test_tells_each_step(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = list(CsvUrl(url=server.url + PATH).check())
    assert [(step.name, step.ok) for step in steps] == [(n, True) for n in ("reach", "authenticate", "permission", "sample")]
    assert steps[-1].message == "3 records of 4 fields in the first batch"
    for status, name in ((401, "authenticate"), (403, "permission"), (404, "sample")):
        server.put("/refused", b"", status=status)
        failed = list(CsvUrl(url=server.url + "/refused?key=SECRET").check())[-1]
        assert (failed.name, failed.ok) == (name, False)
        assert "SECRET" not in failed.message
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "")
    (failed,) = CsvUrl(url=server.url + PATH).check()
    assert (failed.name, failed.ok) == ("reach", False)
    assert "IDENTITY_ALLOW_PRIVATE_HOSTS" in failed.message
    (failed,) = CsvUrl(url=server.url + PATH, delimiter=";;").check()
    assert "delimiter" in failed.message


def test_the_connector_shows_nothing_of_its_address(server: FileServer) -> None:
    source = CsvUrl(url=server.url + PATH + "?signature=SECRET")
    assert "SECRET" not in repr(source) + str(source) + repr(source.store(ReadContext()))


@pytest.mark.parametrize(
    "header", ["id", "ID", "Id", "external_id", "Customer ID", "customerId", "CONTACT_ID", "contact-id", "Contact id", "uuid"]
)
def test_a_customary_header_is_the_external_id(header: str) -> None:
    assert header in HEADERS.external_id


def test_customary_headers_feed_the_canonical_fields(server: FileServer) -> None:
    server.put(
        PATH,
        b"Customer Id,E-Mail,Mobile Phone,First Name,LAST_NAME,ZIP Code,companyName\n"
        b"7,Ann@Lee-Family.net,+49 30 1234567,Ann,Lee,01234,ACME\n",
    )
    found, _ = load(CsvUrl(url=server.url + PATH), window())
    (row,) = canonicalise(pa.Table.from_pandas(found, preserve_index=False), CsvUrl.field_map).to_pylist()
    assert [row[field] for field in ("email", "phone", "first_name", "last_name", "postal_code", "company")] == [
        "ann@lee-family.net", "+49301234567", "Ann", "Lee", "01234", "ACME",
    ]  # fmt: skip


EXPORTS = {
    "outlook": b"ID,First Name,Last Name,E-mail Address,Business Phone\n1,Ann,Lee,a@lee-family.net,+49 30 901820\n",
    "google": b"id,Given Name,Family Name,E-mail 1 - Value,Phone 1 - Value\n"
    b"1,Ann,Lee,a@lee-family.net ::: b@lee-family.net,+49 30 901820 ::: +49 30 901821\n",
    "hubspot": b"Record ID,First Name,Last Name,Email,Mobile Phone Number\n1,Ann,Lee,a@lee-family.net,+49 30 901820\n",
    "mailchimp": b"LEID,FNAME,LNAME,Email Address,PHONE\n1,Ann,Lee,a@lee-family.net,30901820.0\n",
    "salesforce": b"ID,FIRSTNAME,LASTNAME,EMAILADDRESS,MOBILEPHONE,ISDELETED\n1,Ann,Lee,a@lee-family.net,+49 30 901820,0\n",
    "customers": b"CUSTOMERID,FIRSTNAME,LASTNAME,EMAIL,HOMEPHONE\n1,Ann,Lee,a@lee-family.net,+49 30 901820\n",
    "thunderbird": b"ID,First Name,Last Name,Primary Email,Work Phone\n1,Ann,Lee,a@lee-family.net,+49 30 901820\n",
    "a quote apart": b'"id", "first name", "last name", "mail", "tel"\n1, "Ann", "Lee", "a@lee-family.net", "+49 30 901820"\n',
}


@pytest.mark.parametrize("body", EXPORTS.values(), ids=EXPORTS)
def test_an_export_is_understood_without_a_mapping(server: FileServer, body: bytes) -> None:
    server.put(PATH, body)
    found, _ = load(CsvUrl(url=server.url + PATH), window())
    assert any(field in found.columns for field in HEADERS.external_id)
    (row,) = canonicalise(pa.Table.from_pandas(found, preserve_index=False), HEADERS, default_region="DE").to_pylist()
    assert [row[field] for field in ("email", "phone", "first_name", "last_name", "deleted")] == [
        "a@lee-family.net", "+4930901820", "Ann", "Lee", False,
    ]  # fmt: skip


def test_lines_above_the_header_are_a_setting(server: FileServer) -> None:
    server.put(PATH, b"Contacts of today\nid,name\n1,Ann\n")
    found, _ = load(CsvUrl(url=server.url + PATH, skip_lines=1), window())
    assert found.to_dict("records") == [{"id": "1", "name": "Ann"}]


def test_spellings_hold_the_usual_ones_and_none_twice() -> None:
    found = spellings("email_address")
    assert {
        "email_address",
        "Email Address",
        "email address",
        "email-address",
        "EmailAddress",
        "emailAddress",
        "EMAIL_ADDRESS",
        "emailaddress",
    } <= set(found)
    assert len(found) == len(set(found))


def test_it_is_found_by_its_name_and_any_column_can_be_the_cursor() -> None:
    assert connector("csv_url") is CsvUrl
    assert CsvUrl.cursor_columns["*"].filtered_by == "us"
    assert {each.name for each in CsvUrl.settings() if each.required} == {"url"}
