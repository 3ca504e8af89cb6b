"""CSV files: every record once, every character kept, and each fault reported with its line."""

import csv as writers
import io
import json
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from pyarrow import feather, orc, parquet

from identity_pipeline.core.errors import ConfigurationError, LimitExceeded, PipelineError, SourceRejected
from identity_pipeline.core.fieldmap import REJECTED
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files import csv, encoding
from identity_pipeline.readers.files.csv import EXTRA, Dialect, field_names, read_csv

Record = dict[str, str | None]


@pytest.fixture(autouse=True)
def _both_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow parses files as short as those of the tests too."""
    monkeypatch.setattr(csv, "_SHORT", 0)


def read(data: bytes, charset: str | None = None, context: ReadContext | None = None, **dialect: Any) -> list[Record]:
    records: list[Record] = []
    batches = list(read_csv(io.BytesIO(data), Dialect(**dialect), context or ReadContext(), charset=charset))
    for batch in batches:
        assert all(column.type == pa.string() for column in batch.columns)
        assert (len(batches) > 1) <= batch.num_rows <= csv.MAX_ROWS, "only a file without rows gives a table without rows"
        records += batch.to_pylist()
    return records


def read_slowly(data: bytes, **dialect: Any) -> list[Record]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv._Parse, "_fast", lambda self, text: None)
        return read(data, **dialect)


def read_in_pieces(data: bytes, size: int, **dialect: Any) -> list[Record]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv, "_BLOCK", size)
        patch.setattr(encoding, "_BLOCK", size)
        return read(data, **dialect)


def outcome(records: Any, *args: Any, **options: Any) -> Any:
    """What came of it, comparable: rejected records by what they hold, errors by their text."""
    try:
        return [{name: value for name, value in record.items() if value is not None} for record in records(*args, **options)]
    except PipelineError as error:
        return type(error), str(error)


def all_ways(data: bytes, **dialect: Any) -> Any:
    """The outcome, which is the same whichever parser and whichever blocks it took."""
    whole = outcome(read, data, **dialect)
    assert outcome(read_slowly, data, **dialect) == whole
    for size in (1, 7, 64):
        # what is in the first block may decide the delimiter
        assert outcome(read_in_pieces, data, size, **{"delimiter": ",", **dialect}) == outcome(read, data, **{"delimiter": ",", **dialect})
    return whole


ODD = {
    "plain": (b"id,name\n1,Ann\n2,Bob\n", [{"id": "1", "name": "Ann"}, {"id": "2", "name": "Bob"}]),
    "no line break at the end": (b"id,name\n1,Ann", [{"id": "1", "name": "Ann"}]),
    "crlf": (b"id,name\r\n1,Ann\r\n", [{"id": "1", "name": "Ann"}]),
    "cr only": (b"id,name\r1,Ann\r2,Bob\r", [{"id": "1", "name": "Ann"}, {"id": "2", "name": "Bob"}]),
    "blank lines": (b"\n\nid,name\n\n1,Ann\n  \n\n2,Bob\n\n", [{"id": "1", "name": "Ann"}, {"id": "2", "name": "Bob"}]),
    "rows of empty cells": (b"id,name\n,\n1,Ann\n,\n", [{"id": "1", "name": "Ann"}]),
    "text is kept": (
        b'id,a,b,c,d\n007,NA,1e5, x ,null\n"007","None",1.0,"+49 30",\xe2\x82\xac\n',
        [
            {"id": "007", "a": "NA", "b": "1e5", "c": " x ", "d": "null"},
            {"id": "007", "a": "None", "b": "1.0", "c": "+49 30", "d": "€"},
        ],
    ),
    "empty is null, quoted or not": (b'id,a,b\n1,,""\n', [{"id": "1"}]),
    "line breaks and delimiters in quotes": (
        b'id,note\r\n1,"a\r\nb, ""c"""\r\n2,"\n"\r\n',
        [{"id": "1", "note": 'a\r\nb, "c"'}, {"id": "2", "note": "\n"}],
    ),
    "a quote inside an unquoted cell": (b'id,name\n1,5" pipe\n2,a\n', [{"id": "1", "name": '5" pipe'}, {"id": "2", "name": "a"}]),
    "nul": (b"id,name\n1,a\x00b\n", [{"id": "1", "name": "a\x00b"}]),
    "bom": (b"\xef\xbb\xbfid,name\n1,Ann\n", [{"id": "1", "name": "Ann"}]),
    "a bom that is a value": (b"id,name\n\xef\xbb\xbf1,Ann\n", [{"id": "\ufeff1", "name": "Ann"}]),
    "short row": (b"id,a,b\n1,x\n2,y,z\n", [{"id": "1", "a": "x"}, {"id": "2", "a": "y", "b": "z"}]),
    "empty cells beyond the header": (b"id,a\n1,x,,\n2,y,,\n", [{"id": "1", "a": "x"}, {"id": "2", "a": "y"}]),
    "one column": (b"id\n1\n\n2\n", [{"id": "1"}, {"id": "2"}]),
    "a header alone": (b"id,name\n", []),
}


@pytest.mark.parametrize(("data", "records"), ODD.values(), ids=ODD)
def test_an_odd_file_is_read_as_it_is(data: bytes, records: list[Record]) -> None:
    assert all_ways(data) == records


FAULTS = {
    "extra cells": (b'id,a\n1,"x\ny"\n\n2,x,y,"z"\n3,z\n', "2", "extra_cells: line 5 has 4 cells, the header has 2"),
    "text after a closing quote": (b'id,a\n1,x\n2,"a" b\n3,z\n', "2", "stray_quote: line 3 has text after a closing quote"),
    "a quote open on the last line": (b'id,a\n1,x\n2,"abc\n', "2", "unclosed_quote: line 3 ends inside a quote"),
    "a last row that breaks off": (b"id,a,b\n1,x,y\n2,z", "2", "cut_off: line 3, the last one, breaks off after 2 of 3 cells"),
    "a row after a stray quote": (b'id,a,b\n1,"x "y"\n2,z\n3,z,z\n', "2", "after_stray_quote: line 3 has 2 cells"),
    "a field that is too large": (
        b"id,a\n1,x\n2," + b"x" * 1_000_001 + b"\n3,z\n",
        "2",
        "field_too_large: cell 2 of line 3 has 1,000,001 characters",
    ),
}


@pytest.mark.parametrize(("data", "external_id", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_row_is_rejected_with_its_line_and_the_others_are_read(data: bytes, external_id: str, reason: str) -> None:
    records = read(data)
    assert records == read_slowly(data)
    (rejected,) = [r for r in records if (r.get(REJECTED) or "").startswith(reason)]
    assert rejected["id"] == external_id
    text = data.decode()
    assert {r["id"] for r in records} == {f for f in ("1", "2", "3") if f"\n{f}," in text}
    assert not [r for r in records if r["id"] in {"1", "3"} and r.get(REJECTED) and "stray" not in r[REJECTED]]


def test_the_cells_beyond_the_header_are_kept() -> None:
    (record,) = read(b'id,a\n1,x,y,"z,""q"\n')
    assert json.loads(record[EXTRA] or "") == ["y", 'z,"q']


def test_a_cell_that_is_too_large_keeps_its_beginning_only() -> None:
    (record,) = read(b'id,a\n1,"' + b"\xc3\xa4" * 1_000_001 + b'"\n')
    assert record["a"] == "ä" * 1_000
    assert (record[REJECTED] or "").startswith("field_too_large")
    (record,) = read(b'id,a\n1,"' + b"\xc3\xa4" * 1_000_000 + b'"\n')
    assert record["a"] == "ä" * 1_000_000
    assert record.get(REJECTED) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'id,a\n1,x\n2,"open\n3,y\n4,z\n', "line 3 opens a quote that is never closed, and 2 lines follow it"),
        (b'id,a\n1,"foo\n2,"bar"\n3,x\n', "a quote that line 2 opens is closed in the middle of line 3"),
    ],
)
def test_a_quote_that_swallows_other_lines_stops_the_read(data: bytes, message: str) -> None:
    kind, found = all_ways(data)
    assert kind is SourceRejected
    assert message in found


def test_an_open_quote_in_a_large_file_stops_the_read_with_its_line() -> None:
    data = b'id,a\n1,x\n2,"open\n' + b"3,yyyyyyyyyyyyyyyyyyyyyyyyyyyy\n" * 1_200_000
    with pytest.raises(LimitExceeded, match="record at line 3 does not end within 32 MB"):
        read(data)


def test_short_rows_are_counted_as_a_warning() -> None:
    context = ReadContext()
    read(b"id,a\n1\n2,x\n", delimiter=",", context=context)
    assert any("fewer cells" in warning for warning in context.warnings)


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (b"sep=;\r\nid;a\r\n1;x,y\r\n", {}),
        (b"sep=;\r\nid;a\r\n1;x,y\r\n", {"delimiter": ";"}),
        (b'"sep=|"\nid|a\n1|x,y\n', {}),
        (b"id;a\n1;x,y\n", {}),
        (b"id\ta\n1\tx,y\n", {}),
        (b"id|a\n1|x,y\n", {}),
        (b"id\ta\n1\tx,y\n", {"delimiter": "tab"}),
        ("id¦a\n1¦x,y\n".encode(), {"delimiter": "¦"}),
        (b"id,a\n1,'x,y'\n", {"quote": "'"}),
    ],
)
def test_the_delimiter_is_declared_announced_or_the_consistent_one(data: bytes, options: dict[str, str]) -> None:
    assert read(data, **options) == [{"id": "1", "a": "x,y"}]
    assert read_slowly(data, **options) == [{"id": "1", "a": "x,y"}]


def test_commas_in_notes_do_not_make_a_comma_the_delimiter() -> None:
    rows = "".join(f"{n};Ann;a, b, c and {n}, d\n" for n in range(300))
    assert read(f"id;name;note, public\n{rows}".encode())[7] == {"id": "7", "name": "Ann", "note, public": "a, b, c and 7, d"}


def test_backslash_escapes_are_read_where_declared() -> None:
    data = b'id,a\n1,"x \\"y\\", \\\\"\n2,"say ""hi"""\n'
    assert read(data, escape="\\") == [{"id": "1", "a": 'x "y", \\'}, {"id": "2", "a": 'say "hi"'}]


def test_without_quoting_a_quote_is_a_character() -> None:
    data = b'id,a\n1,"x\n2,y"z"\n'
    assert read(data, quote="") == read_slowly(data, quote="") == [{"id": "1", "a": '"x'}, {"id": "2", "a": 'y"z"'}]


def test_a_file_without_header_gets_numbered_names() -> None:
    assert all_ways(b"1,Ann\n2,Bob\n", header=False) == [
        {"column_1": "1", "column_2": "Ann"},
        {"column_1": "2", "column_2": "Bob"},
    ]


def test_header_names_are_clean_and_none_is_twice() -> None:
    cells = ["\ufeff id ", "E-Mail\u200b", "", "E-Mail", "e\u0301", " a \n b ", "E-Mail_2", "@identity.rejected", "_extra", "E-Mail"]
    assert field_names(cells) == [
        "id", "E-Mail", "column_3", "E-Mail_2", "é", "a b", "E-Mail_2_2", "identity.rejected", "_extra_2", "E-Mail_3",
    ]  # fmt: skip


def test_no_column_of_two_with_one_name_is_lost() -> None:
    assert all_ways(b"id,tel,tel\n1,2,3\n") == [{"id": "1", "tel": "2", "tel_2": "3"}]


ENCODINGS = {
    "utf-8 with mark": ("utf-8-sig", {}, None),
    "utf-16 le with mark": ("utf-16", {}, None),
    "utf-16 le without mark": ("utf-16-le", {}, None),
    "utf-16 be without mark": ("utf-16-be", {}, None),
    "utf-32 with mark": ("utf-32", {}, None),
    "utf-16 le declared": ("utf-16-le", {"encoding": "UTF-16LE"}, None),
    "utf-16 with mark, le declared": ("utf-16", {"encoding": "UTF-16LE"}, None),
    "utf-16 le, the server says so": ("utf-16-le", {}, "UTF-16LE"),
    "the server says utf-16 le, the bytes say utf-8": ("utf-8", {}, "UTF-16LE"),
    "utf-16 le without mark, hardly a western letter": ("utf-16-le", {}, "cyrillic"),
    "utf-16 be without mark, hardly a western letter": ("utf-16-be", {}, "cyrillic"),
    "declared": ("cp850", {"encoding": "cp850"}, None),
    "the server says so": ("shift_jis", {}, "Shift_JIS"),
    "the server says latin-1, the bytes say utf-8": ("utf-8", {}, "ISO-8859-1"),
    "the server says utf-8, the bytes say cp1252": ("cp1252", {}, "utf-8"),
    "the server says what no file is in": ("utf-8", {}, "x-nonsense"),
    "a mark against a declaration": ("utf-16", {"encoding": "cp1252"}, None),
}


@pytest.mark.parametrize(("written", "options", "charset"), ENCODINGS.values(), ids=ENCODINGS)
def test_the_encoding_is_found_by_rule(written: str, options: dict[str, str], charset: str | None) -> None:
    name = "東京" if written == "shift_jis" else "Jürgen"
    if charset == "cyrillic":
        name, charset = "Екатерина Великая" * 5, None
    data = f"id,name\r\n1,{name}\r\n2,Ann\r\n".encode(written)
    assert read(data, charset, **options) == [{"id": "1", "name": name}, {"id": "2", "name": "Ann"}]


def test_bytes_that_are_no_utf_8_are_read_with_a_warning_that_names_the_place() -> None:
    context = ReadContext()
    data = b"id,name\n1,Ann\n2,J\xfcrgen \x80\n"
    assert read(data, context=context)[1] == {"id": "2", "name": "Jürgen €"}
    assert "byte 17 (line 3), read as cp1252" in context.warnings[0]
    context = ReadContext()
    assert read(b"id,name\n1,a\x81\xfc\n", context=context) == [{"id": "1", "name": "a\x81ü"}]
    assert "read as iso8859-1" in context.warnings[0]


def test_a_late_byte_that_is_no_utf_8_is_found_before_the_first_batch() -> None:
    context = ReadContext()
    data = b"id,name\n" + b"".join(b"%d,Ann\n" % n for n in range(5_000)) + b"5000,J\xfcrgen\n"
    assert read_in_pieces(data, 1_000, context=context)[-1] == {"id": "5000", "name": "Jürgen"}
    assert "(line 5,002), read as cp1252" in context.warnings[0]


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"id\n1\n\xff\n", {"encoding": "utf-8"}, "not utf-8 as the setting encoding says: byte 5 (line 3)"),
        (b"\xef\xbb\xbfid\n\xff\n", {}, "not utf-8 as its byte order mark says: byte 6 (line 2)"),
        ("id\r\n1\r\n".encode("utf-16") + b"\x00", {}, "not utf-16-le as its byte order mark says: byte 16 (line 3)"),
        (b"\xc3\xa4\n\xc3\n\xe4\n\xe4\n\xe4\n\xe4\n", {"encoding": "utf-8"}, "byte 3 (line 2)"),
        (b"id\r\n1\r\n", {"encoding": "UTF-16LE"}, "no zero byte"),
    ],
)
def test_a_file_that_is_not_what_it_claims_stops_with_byte_and_line(data: bytes, options: dict[str, str], message: str) -> None:
    for size in (1, 2, 3, 1000):
        with pytest.raises(SourceRejected) as caught:
            read_in_pieces(data, size, **options)
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n\n", "is empty"),
        (b"PK\x03\x04rest", "Excel"),
        (b"PK\x07\x08PK\x03\x04rest", "a part of a split ZIP archive, not CSV: pack it in one"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a picture"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "a picture"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(9), "a picture"),
        (b"SQLite format 3\x00", "a database"),
        (b"\x00\x01\x00\x00Standard ACE DB\x00", "a database"),
        (b"PGDMP\x01\x0e\x00", "a database"),
        (b"%PDF-1.7", "a PDF"),
        (b"GIF89a" + bytes(9), "a picture"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "a picture"),
        (b"MZ\x90\x00\x03\x00\x00\x00" + bytes(60), "a program"),
        (b"\x28\xb5\x2f\xfd\x04", "packed twice, not CSV: pack it once"),
        (b"\x04\x22\x4d\x18\x64", "LZ4, not CSV: pack it with gzip"),
        (b"7z\xbc\xaf\x27\x1c", "an archive"),
        (b"contacts.csv" + bytes(245) + b"ustar\x0000", "an archive"),
        (b"BEGIN:VCARD\r\nFN:Ann\r\n", "vCard"),
        (bytes(range(1, 256)) * 4, "holds no text"),
        (b'{"error":"quota"}', "JSON document.*message of an error"),
        (b' [ {"id": 1}, {"id": 2} ]', "JSON document"),
        (b"{}", "JSON document"),
        (b'{"id":1}\n{"id":2}\n', "JSON document"),
        ('{"error":1}'.encode("utf-16"), "JSON document"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML document"),
        (b"\xef\xbb\xbf<Error>\n<Code>x</Code>" + b" " * 70_000 + b"</Error>", "XML document"),
        (b"\xef\xbb\xbf<!-- x -->\n<html><body>Sign in</body></html>", "web page"),
        (b"<!-- a --> <!-- b -->\n<script>location = '/login'</script>", "web page"),
        ("<html>Sign in</html>".encode("utf-16"), "web page"),
        (b"<p>Quota exceeded</p>", "web page"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b'id,"na"me\n1,2\n', "quoting of its first record"),
        (b'id,"name\n1,2\n', "quoting of its first record"),
    ],
)
def test_what_is_no_csv_is_refused_with_advice(data: bytes, message: str) -> None:
    with pytest.raises(SourceRejected, match=message):
        read(data)


@pytest.mark.parametrize("write", [parquet.write_table, orc.write_table, feather.write_feather, partial(feather.write_feather, version=1)])
def test_a_column_file_is_known_by_its_bytes(write: Callable[[pa.Table, BinaryIO], None]) -> None:
    file = io.BytesIO()
    write(pa.table({"id": ["1", "2"], "name": ["Ann", "Bob"]}), file)
    with pytest.raises(SourceRejected, match="a column file"):
        read(file.getvalue())


@pytest.mark.parametrize(
    "data",
    [
        b"<TICKER>,<DATE>\n1,2\n", b"<title>,<name>\n1,2\n", b"<body>;<subject>\n1;2\n", b"[id],[name]\n1,2\n",
        b"{id},{name}\n1,2\n",         b"MZ,BM\n1,2\n", b"MZID_of_the_member,email\n1,2\n", b"II,ORCA\n1,2\n", b"#id,name\n1,2\n",
        b"ORCID,email\n1,2\n",         b"PAR1,email\n1,2\n", b"ARROW1,FEA1\n1,2\n", b"FEA1,email\n1,2\n", b"id, ftyp\n1,2\n",
        b"PGDMP,Rar!\n1,2\n", b"GIF89a,GIF87a\n1,2\n",         b"RIFF_id,WEBP\n1,2\n", b"RIFFname,WEBP\n1,2\n", b"%PDF,email\n1,2\n",
        b"x" * 250 + b",a_ustar\n1,2\n", b"x" * 256 + b",ustar\n1,2\n",
    ],
)  # fmt: skip
def test_an_unusual_header_is_no_document(data: bytes) -> None:
    ((first, second),) = (record.values() for record in read(data))
    assert (first, second) == ("1", "2")


def test_more_columns_than_a_table_can_have_are_refused() -> None:
    with pytest.raises(LimitExceeded, match="2,001 columns"):
        read(b",".join(b"c%d" % n for n in range(2001)) + b"\n")


@pytest.mark.parametrize(
    "options",
    [
        {"delimiter": ";;"},
        {"delimiter": '"'},
        {"quote": "\n"},
        {"escape": ","} | {"delimiter": ","},
        {"encoding": "nonsense"},
        {"encoding": "base64"},
    ],
)
def test_a_dialect_that_cannot_be_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        Dialect(**options)


def test_an_error_shows_nothing_of_a_record() -> None:
    canary = "ann.canary@example.com"
    for data in (f'id,a\n1,"{canary}\n2,"{canary}"x\n', f'id,"{canary}"x\n', f'id,a\n1,"{canary}\n2,x\n'):
        with pytest.raises(SourceRejected) as caught:
            read(data.encode())
        assert canary not in str(caught.value)
    for data in (f'id,a\n1,"{canary}"x\n', f"id,a\n1,{canary},{canary}\n"):
        assert canary not in (read(data.encode())[0][REJECTED] or "")


def test_batches_are_bounded_and_no_row_is_lost_between_them() -> None:
    data = b"id,a\n" + b"".join(b'%d,"x\ny"\n' % n if n % 1000 == 0 else b"%d,z\n" % n for n in range(300_000))
    sizes = [batch.num_rows for batch in read_csv(io.BytesIO(data), Dialect(), ReadContext())]
    assert max(sizes) <= 50_000
    assert sum(sizes) == 300_000
    assert [r["id"] for r in read_in_pieces(data[:20_000], 512)] == [r["id"] for r in read(data[:20_000])]


def test_a_well_formed_file_never_needs_the_slow_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"id,a\r\n" + b"".join(b'%d,"x ""%d""\r\ny,\n\nz"\r\n' % (n, n) for n in range(2_000))
    whole = read_slowly(data)
    monkeypatch.setattr(csv._Parse, "_slow", lambda _: pytest.fail("parsed slowly"))
    for size in (997, 1_000, 4_096, 2**20):
        assert read_in_pieces(data, size) == whole


# --- bytes that are not of the encoding -------------------------------------------------------------

DAMAGED = "id,name\n1,Zoë\n2,Bo".encode() + b"\xff" + 'b\n3,Łukasz\n4,"x\ny'.encode() + b'\xe4"\n5,Ann\n'.replace(b"\xe4", b"\xc3")


@pytest.mark.parametrize("options", [{}, {"encoding": "utf-8"}, {"charset": "iso-8859-1"}, {"mark": True}])
def test_a_row_with_a_byte_that_is_not_utf_8_is_rejected_and_the_others_stay(options: dict[str, Any]) -> None:
    context = ReadContext()
    data = b"\xef\xbb\xbf" * options.pop("mark", False) + DAMAGED
    records = read(data, context=context, **options)
    assert {record["id"]: record["name"] for record in records} == {
        "1": "Zoë", "2": "Bo\\xffb", "3": "Łukasz", "4": "x\ny\\xc3", "5": "Ann",
    }  # fmt: skip
    assert [(r["id"], r[REJECTED]) for r in records if r.get(REJECTED)] == [
        ("2", "not_utf8: line 3 holds bytes that are not UTF-8"),
        ("4", "not_utf8: line 5 holds bytes that are not UTF-8"),
    ]
    assert [r[csv.ROW] for r in records if r.get(REJECTED)] == ["2,Bo\\xffb", '4,"x\ny\\xc3"']
    assert "2 of its bytes are not UTF-8, the first is byte" in context.warnings[0]
    assert "(line 3)" in context.warnings[0]


def test_a_damaged_file_is_read_alike_in_any_blocks() -> None:
    whole = all_ways(DAMAGED + b"6,Ann\n" * 20)
    assert len(whole) == 25


def test_a_character_that_stands_for_none_is_no_fault() -> None:
    (record,) = read("id,name\n1,Bo\ufffdb\n".encode())
    assert record == {"id": "1", "name": "Bo\ufffdb"}


def test_a_late_byte_in_a_large_file_costs_its_row_only() -> None:
    data = b"id,name\n" + "".join(f"{n},Zoë\n" for n in range(100_000)).encode() + b"x,Bo\xffb\ny,\xc3\xab\n"
    records = read(data)
    assert len(records) == 100_002
    assert [r["id"] for r in records if r.get(REJECTED)] == ["x"]
    assert {r["name"] for r in records if not r.get(REJECTED)} == {"Zoë", "ë"}


# --- cells beyond the header --------------------------------------------------------------------


def test_an_empty_cell_too_many_rejects_its_row_unless_all_rows_end_so() -> None:
    usual = b"id,last,first,mail\n1,Lee,Ann,a@x.org\n2,Lee, Bob,b@x.org,\n3,Lee,Cid,c@x.org\n"
    records = all_ways(usual)
    assert [r["id"] for r in records if r.get(REJECTED)] == ["2"]
    assert records[1][REJECTED] == "extra_cells: line 3 has 5 cells, the header has 4"
    assert (records[1][EXTRA], records[1][csv.ROW]) == ('[""]', "2,Lee, Bob,b@x.org,")
    trailing = b"id,last\n1,Lee,\n2,Lee,\n3,Lee,Ann,\n4,Lee,\n5,Lee\n" + b"6,Lee,\n" * 20
    assert [r["id"] for r in all_ways(trailing) if r.get(REJECTED)] == ["3"]
    assert [r["id"] for r in all_ways(b"id,last\n1,Lee,\n") if r.get(REJECTED)] == ["1"], "one row is no custom"
    assert [r["id"] for r in all_ways(b"id,last,\n1,Lee,\n") if r.get(REJECTED)] == []


@pytest.mark.parametrize(
    ("row", "kept"),
    [(b'2,"a" b', '2,"a" b'), (b'2,x,"y"', '2,x,"y"'), (b'2,"x\ny",z', '2,"x\ny",z'), (b"2,a\tb,, ", "2,a\tb,, ")],
)
def test_a_rejected_row_is_kept_as_it_stands(row: bytes, kept: str) -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        (record,) = [r for r in all_ways(b"id,a" + end + b"1,x" + end + row + end + b"3,x" + end, delimiter=",") if r.get(REJECTED)]
        assert record[csv.ROW] == kept


# --- blanks and lines around --------------------------------------------------------------------


def test_a_quote_may_stand_apart_from_its_delimiter() -> None:
    data = b'"id", "name", "mail"\n1, "Lee, Ann", "a ""x"", b"\n2, "Bob" , "b@x.org" \n3, Cid , "c\nd"\n4, "Dee" x, y\n'
    *records, last = all_ways(data)
    assert records == [
        {"id": "1", "name": "Lee, Ann", "mail": 'a "x", b'},
        {"id": "2", "name": "Bob", "mail": "b@x.org"},
        {"id": "3", "name": "Cid ", "mail": "c\nd"},
    ]
    assert last[REJECTED].startswith("stray_quote")
    assert all_ways(b'id;name\n1; "Lee; Ann"\n', delimiter=";") == [{"id": "1", "name": "Lee; Ann"}]


def test_blanks_stay_where_no_quote_asks_for_it() -> None:
    assert all_ways(b'id,a,b\n1, x ,"y, ""z"", w"\n2,"p, ""q""", r\n') == [
        {"id": "1", "a": " x ", "b": 'y, "z", w'},
        {"id": "2", "a": 'p, "q"', "b": " r"},
    ]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"Contacts, exported\nid;name\n1;x,y\n", 1),
        (b'Contacts "of\n\nid;name\n1;x,y\n', 2),
        (b"sep=;\nContacts\nid;name\n1;x,y\n", 1),
        (b"Contacts\r\nsep=;\r\nid;name\r\n1;x,y\r\n", 1),
        (b"Contacts\rof today\rid;name\r1;x,y\r", 2),
    ],
)
def test_lines_above_the_header_are_left_out_as_set(data: bytes, lines: int) -> None:
    assert read(data, skip_lines=lines) == read_in_pieces(data, 1, skip_lines=lines) == [{"id": "1", "name": "x,y"}]


def test_a_line_number_counts_the_lines_left_out() -> None:
    (record,) = read(b"Contacts\n\nid,a\n1,x,y\n", skip_lines=1)
    assert (record[REJECTED] or "").startswith("extra_cells: line 4")


def test_a_file_of_lines_left_out_only_is_empty() -> None:
    with pytest.raises(SourceRejected, match="is empty"):
        read(b"a\nb\n", skip_lines=5)


def test_a_file_without_rows_shows_its_header() -> None:
    (table,) = read_csv(io.BytesIO(b"Quota exceeded, try again tomorrow\n"), Dialect(), ReadContext())
    assert (table.num_rows, table.column_names) == (0, ["Quota exceeded", "try again tomorrow"])
    assert list(read_csv(io.BytesIO(b""), Dialect(header=False), ReadContext())) == []


# --- ids ---------------------------------------------------------------------------------------


def test_ids_in_scientific_notation_are_warned_of() -> None:
    context = ReadContext()
    assert [r["Id"] for r in read(b"Id,name\n1.23457E+12,Ann\n1.23457E+12,Bob\n", context=context)] == ["1.23457E+12"] * 2
    assert "scientific notation" in context.warnings[0]
    context = ReadContext()
    read(b"id,name\n12E4,1.2E+3\n1E-3,x\n", context=context)
    assert context.warnings == []


def test_ids_that_are_whole_numbers_written_as_floats_are_those_numbers_whatever_stands_beside_them() -> None:
    context = ReadContext()
    assert [r["id"] for r in read(b"id,n\n7.0,1.0\n80.0,2.0\n,3.0\n", context=context)] == ["7", "80", None]
    assert (len(context.warnings), "as floats" in context.warnings[0]) == (1, True)
    odd = b"id,n\n7.0,x\n1.1,x\nTOTAL,x\n8.0,x\nv1.0,x\n1.0.0,x\n"
    assert [r["id"] for r in read(odd)] == ["7", "1.1", "TOTAL", "8", "v1.0", "1.0.0"]
    assert [r["n"] for r in read(b"id,n\n1,1.0\n")] == ["1.0"]
    both = ReadContext()
    assert [r["id"] for r in read(b"id,n\n7.0,x\n7,y\n", context=both)] == ["7", "7"]
    assert "as 7 and as 7.0" in both.warnings[1]
    large = b"id,n\n" + b"".join(b"%d.0,%s\n" % (n, b"x" * 90) for n in range(50_000)) + b"TOTAL,x\n"
    assert {r["id"] for r in read(large)} == {*map(str, range(50_000)), "TOTAL"}


CELLS = st.text(st.sampled_from("ab ,;\"'\n\r\t\\é\x00\ufeff"), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=6),
    # Python's writer leaves a CR unquoted where it is not part of the line ending
    style=st.sampled_from([(writers.QUOTE_MINIMAL, "\r\n"), (writers.QUOTE_ALL, "\r\n"), (writers.QUOTE_ALL, "\n")]),
)
@example(rows=[["", "", ", "], ["", " ", ' "']], style=(writers.QUOTE_MINIMAL, "\r\n"))  # no blank stands before a quote here
def test_what_a_writer_wrote_is_what_we_read(rows: list[list[str]], style: tuple[Any, str]) -> None:
    out = io.StringIO()
    writer = writers.writer(out, quoting=style[0], lineterminator=style[1])
    writer.writerows([["id", "b", "c"], *rows])
    expected = [{n: v for n, v in zip(("id", "b", "c"), row, strict=True) if v} for row in rows if any(row)]
    assert all_ways(out.getvalue().encode(), delimiter=",", encoding="utf-8") == expected


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from([b"a", b",", b'"', b'""', b"\n", b"\r", b"\r\n", b" ", b"\xc3\xa9", b'",', b',"', b"1,2\n"]), max_size=14).map(
        b"".join
    )
)
@example(b'1,"x\n"y,2\n1,2\n')
@example(b'","a\n1,2\na')
@example(b'1,""x\n2,2\n')
def test_both_parsers_agree_on_any_bytes(body: bytes) -> None:
    all_ways(b"id,b\n" + body, delimiter=",", encoding="utf-8")


def test_a_file_of_many_comments_takes_no_time() -> None:
    assert read(b"<!-- a -->" * 6_000 + b"<x ") == []
