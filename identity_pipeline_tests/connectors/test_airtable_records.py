"""What is odd about Airtable: any table and field, a mark in a formula, a list that expires, two meanings of 429, empty rows."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyairtable
import pytest
from pyairtable import formulas
from requests import HTTPError

from identity_pipeline import normalise
from identity_pipeline.connectors.airtable_records import AirtableRecords
from identity_pipeline.core.cursor import CursorType
from identity_pipeline.core.errors import ContractBroken, PermissionDenied, RateLimited, SchemaChanged, SourceRejected
from identity_pipeline.core.text import cast_all_utf8
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline.loading.spec import Target
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import Loads, secret
from identity_pipeline_tests.servers.airtable_api import AirtableAPI
from identity_pipeline_tests.servers.faults import FaultProxy, status

pytestmark = pytest.mark.usefixtures("loopback")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "patLkNDICXNqxSDhG.50d1f0"
FIELDS = {
    "Kontakt": "email", "Zweite": "email", "Ruf": "phoneNumber", "Name": "singleLineText", "Nr": "autoNumber",
    "Geändert": "lastModifiedTime",
    "Foto": "multipleAttachments", "Wer": "singleCollaborator", "Summe": "formula", "Firmen": "multipleRecordLinks",
}  # fmt: skip


@pytest.fixture
def base() -> Iterator[AirtableAPI]:
    """An empty table."""
    with serve(AirtableAPI(token=TOKEN, fields=dict(FIELDS))) as api:
        yield api


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def connector(api: AirtableAPI, **settings: Any) -> AirtableRecords:
    return AirtableRecords(**({"access_token": secret(TOKEN), "base_id": api.base_id, "table": api.table, "base_url": api.url} | settings))


def read(
    api: AirtableAPI, column: str | None = None, lower: str | None = None, cursor_type: CursorType = "timestamp", **settings
) -> tuple[pd.DataFrame, Window]:
    source = connector(api, **settings)
    window = reading.window(source, column, lower, **({"cursor_type": cursor_type} if column else {}))
    return reading.read(source, window)[0], window


def asked(api: AirtableAPI) -> list[dict[str, str]]:
    return [dict(each.query) for each in api.asked if "pageSize" in each.query]


def test_a_library_of_others_reads_the_same_pages_of_this_server(base):
    for n in range(5):
        base.put(f"rec{n:014}", ago(days=n), Name=f"Person {n}", Nr=n, Geändert=ago(days=n).isoformat())
    api = pyairtable.Api(TOKEN, endpoint_url=base.url, retry_strategy=None)
    table = api.table(base.base_id, base.table)
    assert [each["fields"]["Name"] for each in table.all(page_size=2)] == [f"Person {n}" for n in range(5)]
    formula = formulas.IS_AFTER(formulas.Field("Geändert"), formulas.DATETIME_PARSE(ago(days=2).isoformat()))
    assert [each["fields"]["Name"] for each in table.all(formula=str(formula), sort=["Name"])] == ["Person 0", "Person 1"]
    assert [each["fields"]["Nr"] for each in table.all(formula=str(formulas.GTE(formulas.Field("Nr"), 3)))] == [3, 4]
    schema = api.base(base.base_id).table(base.table_id).schema()
    assert {each.name: each.type for each in schema.fields} == FIELDS
    assert api.whoami()["id"].startswith("usr")
    with pytest.raises(HTTPError, match="INVALID_FILTER_BY_FORMULA"):
        table.all(formula="{No such field}=1")
    with pytest.raises(HTTPError, match="INVALID_REQUEST_UNKNOWN"):
        table.all(page_size=101)


@pytest.mark.parametrize("table", ["Contacts", "tblHm1gE0wEh4OFA8"])
def test_fields_are_found_by_type_whatever_they_are_called(base, table):
    cells = {"Kontakt": "a@nordwind-demo.com", "Zweite": "b@nordwind-demo.com", "Ruf": "+49 30 1234567", "Name": "Zoë Müller"}
    base.put("rec1", ago(days=1), **cells, Geändert=ago(hours=1).isoformat())
    window = reading.window(connector(base, table=table))
    [batch] = connector(base, table=table).read(window)
    [row] = normalise.canonicalise(cast_all_utf8(batch), AirtableRecords.field_map).to_pylist()
    assert row["emails"] == ["a@nordwind-demo.com", "b@nordwind-demo.com"]
    assert (row["phone"], row["full_name"]) == ("+49301234567", "Zoë Müller")
    assert (row["source_created_at"], row["source_updated_at"]) == (ago(days=1), ago(hours=1))


def test_a_lookup_is_its_first_text_and_a_link_to_a_record_nobodys_name(base):
    base.fields |= {"Company": "multipleRecordLinks", "Company Name": "multipleLookupValues", "City": "multipleLookupValues"}
    base.put("rec1", NOW, Company=["recA0123456789abc"], City=["Berlin", "Bonn"])
    base.put("rec2", NOW, Company=["recA0123456789abc"], **{"Company Name": ["Acme"]})
    [batch] = connector(base).read(reading.window(connector(base)))
    one, two = normalise.canonicalise(cast_all_utf8(batch), AirtableRecords.field_map).to_pylist()
    assert (one["company"], one["city"], two["company"]) == (None, "Berlin", "Acme")
    assert batch.column("Company")[0].as_py() == '["recA0123456789abc"]', "what came is in raw"


def test_without_the_schema_fields_are_found_by_name_and_that_is_said(base):
    base.scopes = ("data.records:read",)
    base.fields["Email"] = "email"
    base.put("rec1", ago(days=1), Email="a@nordwind-demo.com")
    found, window = read(base)
    assert found["Email"].tolist() == ["a@nordwind-demo.com"]
    assert "for want of schema.bases:read" in window.context.warnings[0]
    steps = list(connector(base).check())
    assert all(step.ok for step in steps)
    assert "schema.bases:read" in steps[-1].message


def test_a_record_of_empty_cells_is_a_record_and_an_empty_page_no_end(base):
    base.put("rec1", ago(days=1))
    base.put("rec2", ago(days=1), Name="Ann")
    assert read(base)[0]["id"].tolist() == ["rec1", "rec2"]
    with FaultProxy(base.url) as proxy:
        base.page_size = 1
        read(base)
        offset = next(each.query["offset"] for each in base.asked if "offset" in each.query)
        proxy.plan([None, status(200, {"records": [], "offset": offset})])
        assert read(base, base_url=proxy.url)[0]["id"].tolist() == ["rec2"]


def test_values_of_every_kind_are_kept_and_addresses_that_change_are_not(base):
    photo = {
        "id": "att1",
        "url": "https://v5.example/1",
        "filename": "a.png",
        "size": 1,
        "thumbnails": {"small": {"url": "https://v5.example/2"}},
    }
    cells = {
        "Foto": [photo],
        "Wer": {"id": "usr1", "email": "own@er.example", "name": "Own Er"},
        "Summe": {"error": "#ERROR!"},
        "Firmen": ["recA"],
    }
    base.put("rec1", ago(days=1), **cells)
    found, _ = read(base)
    row = {name: found[name][0] for name in found.columns}
    assert row["Foto"] == '[{"id":"att1","filename":"a.png","size":1}]'
    assert (row["Wer.email"], row["Summe.error"], row["Firmen"]) == ("own@er.example", "#ERROR!", '["recA"]')


def test_a_field_of_the_users_own_is_the_cursor_inclusively_and_sorted(base):
    for n, seconds in enumerate((3, 1, 0, -1)):
        base.put(f"rec{n}", NOW, Geändert=(NOW + timedelta(seconds=seconds)).isoformat())
    base.put("rec9", NOW)
    found, _ = read(base, "Geändert", NOW.isoformat())
    assert found["id"].tolist() == ["rec9", "rec2", "rec1", "rec0"]
    assert asked(base)[0]["sort[0][field]"] == "Geändert"


def test_a_number_is_a_cursor_and_a_text_is_filtered_here(base):
    for n in range(1, 5):
        base.put(f"rec{n}", NOW, Nr=n, Name=f"n{n}")
    assert read(base, "Nr", "3", "int")[0]["id"].tolist() == ["rec3", "rec4"]
    assert read(base, "Name", "n3", "text")[0]["id"].tolist() == ["rec3", "rec4"]
    assert ["filterByFormula" in each for each in asked(base)] == [True, False]


@pytest.mark.parametrize("name", ["a}b", "it's", "back\\slash", "{x}", "')=BLANK(),1)", "{0}", "{bound}"])
def test_a_field_of_any_name_is_named_in_the_formula_and_cannot_end_it(base, name):
    base.fields[name] = "dateTime"
    base.put("rec1", NOW, **{name: ago(days=2).isoformat()})
    base.put("rec2", NOW, **{name: NOW.isoformat()})
    assert read(base, name, ago(days=1).isoformat())[0]["id"].tolist() == ["rec2"]


def test_without_a_field_the_formula_knows_what_changed_and_the_mark_is_the_time_of_the_read(base):
    base.now = NOW
    base.put("rec1", ago(days=9))
    base.put("rec2", ago(days=9))
    base.put("rec2", ago(minutes=1), Name="Ann")
    base.changed.pop("rec1")  # never changed: blank
    base.put("rec3", ago(minutes=1))
    base.changed.pop("rec3")
    found, window = read(base, "LAST_MODIFIED_TIME()", ago(minutes=5).isoformat())
    assert found["id"].tolist() == ["rec2", "rec3"]
    assert window.context.source_time == NOW
    assert window.cursor is not None
    assert not window.cursor.in_records
    assert read(base, "createdTime", ago(minutes=5).isoformat())[0]["id"].tolist() == ["rec3"]


def test_a_list_that_expired_is_a_broken_contract_which_begins_the_read_again(base):
    base.page_size = 1
    for n in range(3):
        base.put(f"rec{n}", ago(days=n))
    source = connector(base)
    pages = source.pages(source.client(ReadContext(sleep=lambda _: None)), Window())
    next(pages)
    base.expire()
    with pytest.raises(ContractBroken, match="422 LIST_RECORDS_ITERATOR_NOT_AVAILABLE"):
        next(pages)


def test_429_is_half_a_minute_or_the_rest_of_the_month(base):
    naps: list[float] = []
    base.put("rec1", ago(days=1))
    base.storm = 1
    list(connector(base).read(Window(context=ReadContext(sleep=naps.append))))
    assert 30 in naps
    base.quota = 0
    with pytest.raises(RateLimited, match="PUBLIC_API_BILLING_LIMIT_EXCEEDED: the workspace's calls of this month are used up") as caught:
        list(connector(base).read(Window(context=ReadContext(sleep=naps.append))))
    assert caught.value.wait == float("inf")
    assert [step.name for step in connector(base).check() if not step.ok] == ["reach"], "that the schema is shown proves nothing"


@pytest.mark.parametrize("settings", [{"base_id": "appOther"}, {"table": "Contact"}])
def test_a_wrong_base_and_a_wrong_table_look_like_a_missing_right_and_both_are_named(base, settings):
    with pytest.raises(PermissionDenied, match=r"data\.records:read and put the base .* or correct base_id and table"):
        read(base, **settings)


def test_a_cursor_that_is_no_field_is_named_as_what_is_wrong(base):
    with pytest.raises(SourceRejected, match="422 INVALID_FILTER_BY_FORMULA: cursor_column has to be a field of the table"):
        read(base, "Changed", NOW.isoformat())


@pytest.mark.parametrize("bad", ["app/../x", "app1?x=1", "tbl1", "", "app1/tbl2"])
def test_a_base_that_is_none_is_refused_before_anything_is_asked(base, bad):
    with pytest.raises(ValueError, match="base_id"):
        connector(base, base_id=bad)


def test_the_fields_of_the_source_are_those_of_its_schema_and_what_stands_inside_them(base):
    _, window = read(base)
    assert {"id", "createdTime", "by_type.email.1", "by_type.email.2", "by_type.phoneNumber.1", "Name", "Wer.email"} <= set(
        window.context.fields
    )
    assert not {"by_type.email.3", "by_type.phoneNumber.2"} & set(window.context.fields)
    base.scopes = ("data.records:read",)
    assert not read(base)[1].context.fields


KNOWN = {"Kontakt": "a@nordwind-demo.com", "Zweite": "b@nordwind-demo.com", "Ruf": "+49 30 1234567"}


@pytest.fixture
def loads(base: AirtableAPI, target: Target) -> Loads:
    """A table of one record, loaded by its fields' types; then the record changes."""
    loads = Loads(target, connector(base), "Geändert")
    base.put("rec1", ago(days=1), **KNOWN, Name="Ann", Geändert=ago(days=1).isoformat())
    loads.load()
    base.put("rec1", ago(hours=1), Name="Anna", Geändert=ago(hours=1).isoformat())
    return loads


def known(loads: Loads) -> tuple[list[str], str, str]:
    row = loads.rows()["rec1"]
    return row["emails"], row["phone"], row["full_name"]


@pytest.mark.parametrize("full_refresh", [False, True])
def test_a_token_that_may_not_see_the_schema_any_more_overwrites_nothing_and_hears_what_to_do(base, loads, full_refresh):
    before = known(loads)
    base.scopes = ("data.records:read",)
    with pytest.raises(PermissionDenied, match=r"'by_type\.email\.1' any more.*; give the token the scope schema.bases:read again, or say"):
        loads.load(full_refresh=full_refresh)
    assert known(loads) == before
    base.scopes = ("data.records:read", "schema.bases:read")
    loads.load()
    assert known(loads) == (list(KNOWN.values())[:2], "+49301234567", "Anna")


def test_without_the_schema_a_mapping_says_what_is_what(base, loads):
    base.scopes = ("data.records:read",)
    loads.mapping = {"email": "Kontakt", "phone": "Ruf", "source_updated_at": "Geändert"}
    loads.load()
    assert known(loads) == (["a@nordwind-demo.com"], "+49301234567", "Anna")


def test_a_first_load_without_the_schema_goes_by_names(base, target):
    base.scopes, base.fields["Email"] = ("data.records:read",), "email"
    base.put("rec1", ago(days=1), Email="a@nordwind-demo.com")
    for _ in range(2):
        assert any("schema.bases:read" in warning for warning in Loads(target, connector(base)).load()["warnings"])
    assert Loads(target, connector(base)).rows()["rec1"]["email"] == "a@nordwind-demo.com"


@pytest.mark.parametrize(("name", "lost"), [("Kontakt", "email.2"), ("Zweite", "email.2"), ("Ruf", "phoneNumber.1")])
def test_a_field_that_is_of_another_type_now_overwrites_nothing(base, loads, name, lost):
    before = known(loads)
    base.fields[name] = "singleLineText"
    with pytest.raises(SchemaChanged, match=rf"'by_type\.{lost}' is not in the source any more"):
        loads.load()
    assert known(loads) == before
    loads.load(full_refresh=True)
    assert known(loads)[2] == "Anna", "the loss is accepted by a full refresh"


def test_a_field_of_a_type_more_is_no_loss(base, loads):
    base.fields["Dritte"] = "email"
    loads.load()
    assert known(loads)[2] == "Anna"
