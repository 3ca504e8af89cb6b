"""Damaged CSV files without end, and what has to be true of reading each: `python -m identity_pipeline_tests.readers.files.mutants`.

Each record of an undamaged file carries a mark of its own. Whatever becomes of the file: its read ends with a clear error, or each mark
that still stands in it is found again in what was read, each record that was read is landed, and each that is landed is merged or
quarantined; the same whichever parser read it, in however small blocks. A mutant is made from a number, and found again by it.
"""

import argparse
import bz2
import gzip
import io
import json
import lzma
import random
import re
import sys
import tempfile
import time
import traceback
import zipfile
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from backports import zstd

from identity_pipeline.core.errors import PipelineError
from identity_pipeline.core.text import cast_all_utf8
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers import files
from identity_pipeline.readers.files import Dialect, Reading, csv, encoding
from identity_pipeline.readers.names import HEADERS
from identity_pipeline.store import rejection
from identity_pipeline.store.landing import Landing
from identity_pipeline_tests.servers.shelf import Shelf

LONG = 20.0
"""Seconds that no file of a few kilobytes takes, on the busiest machine."""
_MARK = re.compile(rb"k\d{4}z")
_NULS = re.compile(r"\\u0000|\x00")
_TOKENS = (
    b'"', b'""', b'"\n', b'\n"', b'\\"', b'"",""', b"'", b"\r", b"\n", b"\r\n", b"\n\n", b",", b";", b"\t", b"|", b",,,,", b" ", b"\\",
    b"\x00", b"\x0c", b"\x1a", b"\x85", b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe",
    *(text.encode() for text in ("é", "\u2028", "\u200b", "\U0001f600")), "é".encode("cp1252"),
    b"sep=;\n", b"=1+1", b"id", b"<a>", b"{", b"7.0", b"1.2E+12",
)  # fmt: skip
_ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "iso-8859-15", "cp1250", "shift-jis")
_WIDE = ("utf-16", "utf-32")
_PACKINGS = {
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "two gzip members": lambda body: gzip.compress(body[:99], mtime=0) + gzip.compress(body[99:], mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda body: zstd.compress(body, options={zstd.CompressionParameter.checksum_flag: 1}),
    "zip": lambda body: _zipped(body, zipfile.ZIP_DEFLATED),
    "zip, stored": lambda body: _zipped(body, zipfile.ZIP_STORED),
}


def _zipped(body: bytes, method: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo("folder/"), b"")
        archive.writestr(zipfile.ZipInfo("folder/file.csv"), body, method)
    return made.getvalue()


def _corpus() -> list[bytes]:
    """Well-formed files of all kinds, each of some thirty records with a mark."""
    marks = [f"k{number:04}z" for number in range(30)]
    shapes = {
        "id,email,name\n": "{n},{m}@example.com,Ann {m}\n",
        '"id","email","name"\r\n': '"{n}","{m}@example.com","Lee, ""Ann"" {m}"\r\n',
        "id;e-mail;note\n": '{n};{m}@example.com;"two\nlines, {m}"\n',
        "Customer ID\tE-Mail\tCity\n": "{n}\t{m}@example.com\tKöln {m}\n",
        "id|name|phone\r": "{n}|Zoë {m}|+49 30 {n}\r",
        "id,name,a,b,c,\n": "{n},{m},,,,\n",
        "id, name, note\n": '{n}, "Lee, Ann", "{m}"\n',
        "id,name\n\n": "{n},Łukasz {m} 😀\n\n",
        "sep=;\nid;name;updated_at\n": "{n};{m};2026-01-01T00:00:00Z\n",
        "id\n": "{m}\n",
        "\ufeffid,name,name,\n": "{n},{m},O'Brien,x\n",
        "id,name\n ": "{n},'{m}\n",
    }
    return [(head + "".join(row.format(n=n, m=m) for n, m in enumerate(marks))).encode() for head, row in shapes.items()]


CORPUS = _corpus()


@dataclass(frozen=True)
class Mutant:
    """The bytes of a file, and the marks that are in it; None where nobody can say."""

    body: bytes
    marks: frozenset[bytes] | None
    dialect: Dialect
    packing_damaged: bool


def mutant(number: int) -> Mutant:
    """The mutant of this number."""
    dice = random.Random(number)
    body, marks = dice.choice(CORPUS), True
    for _ in range(dice.choice((1, 1, 2, 3, 6))):
        body = dice.choice(_CHANGES)(body, dice)
    if dice.random() < 0.3:
        written = dice.choice(_ENCODINGS)
        body = body.decode("utf-8", "replace").encode(written, "replace")
        if dice.random() < 0.3:
            body, marks = dice.choice(_CHANGES)(body, dice), not written.startswith(_WIDE)
    packing_damaged = False
    found = frozenset(_MARK.findall(body.replace(b"\0", b"")))
    if dice.random() < 0.25:
        body = _PACKINGS[dice.choice(list(_PACKINGS))](body)
        if dice.random() < 0.5:
            body = dice.choice(_CHANGES)(body, dice)
            packing_damaged = True
    given = dice.choice(
        ({}, {}, {"delimiter": ","}, {"delimiter": ",", "escape": "\\"}, {"quote": ""}, {"header": False}, {"encoding": "cp1252"})
    )
    return Mutant(body, found if marks else None, Dialect(**given), packing_damaged)


def _insert(body: bytes, dice: random.Random) -> bytes:
    at = dice.randint(0, len(body))
    return body[:at] + dice.choice(_TOKENS) * dice.choice((1, 1, 1, 2, 40)) + body[at:]


def _flip(body: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(body) or 1)
    return body[:at] + bytes([dice.randrange(256)]) + body[at + 1 :]


def _leave_out(body: bytes, dice: random.Random) -> bytes:
    at = dice.randint(0, len(body))
    return body[:at] + body[at + dice.choice((1, 1, 2, 30)) :]


def _repeat(body: bytes, dice: random.Random) -> bytes:
    at = dice.randint(0, len(body))
    part = body[at : at + dice.choice((1, 10, 300))]
    return body[:at] + part * dice.choice((2, 3, 50)) + body[at + len(part) :]


def _cut(body: bytes, dice: random.Random) -> bytes:
    return body[: dice.randint(0, len(body))]


def _swap_lines(body: bytes, dice: random.Random) -> bytes:
    lines = body.splitlines(keepends=True)
    dice.shuffle(lines)
    return b"".join(lines)


def _end_lines(body: bytes, dice: random.Random) -> bytes:
    return re.sub(rb"\r\n|\r|\n", lambda _: dice.choice((b"\n", b"\r\n", b"\r", b"\n")), body)


def _other_delimiter(body: bytes, dice: random.Random) -> bytes:
    return body.replace(dice.choice((b",", b";", b"\t")), dice.choice((b",", b";", b"\t", b"|")), dice.choice((-1, 1, 5)))


def _spoil_quotes(body: bytes, dice: random.Random) -> bytes:
    return re.sub(rb'"', lambda _: dice.choice((b'"', b'"', b'"', b'""', b"", b'" ', b' "')), body)


_CHANGES = (_insert, _insert, _insert, _flip, _flip, _leave_out, _repeat, _cut, _swap_lines, _end_lines, _other_delimiter, _spoil_quotes)


def fault(number: int, landing: Landing) -> str:
    """What is wrong with the reading of this mutant; empty if nothing is."""
    made = mutant(number)
    began = time.monotonic()
    told: Any
    rows = None
    try:
        told = _outcome(made, landing)
        if not isinstance(told, str):
            told, rows = told
    except Exception:  # noqa: BLE001 - whatever it is, it is a fault
        return traceback.format_exc()
    if time.monotonic() - began > LONG:
        return f"it took {time.monotonic() - began:.0f} s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv, "_SHORT", 0)
        if made.dialect.delimiter:
            patch.setattr(csv, "_BLOCK", 1 + number % 97)
            patch.setattr(encoding, "_BLOCK", 1 + number % 97)
        try:
            again = _outcome(made, None)
        except Exception:  # noqa: BLE001
            return traceback.format_exc()
    if (again if isinstance(again, str) else again[0]) != told:
        return f"Arrow or small blocks read something else:\n{again!r:.1200}\n\n{told!r:.1200}"
    if rows is None or made.marks is None:
        return ""
    if made.packing_damaged and not _identified(told):
        return ""  # so that it is no packing any more: the load ends, since no field is an id
    lost = sorted(mark for mark in made.marks if mark.decode() not in rows)
    return f"{len(lost)} marks are lost, such as {lost[0]!r}" if lost else ""


def _outcome(made: Mutant, landing: Landing | None) -> Any:
    """The error that ended the read; or the records that came, and all that is told in them as one text."""
    context = ReadContext(sleep=lambda _: None, log=lambda _: None)
    records: list[dict[str, str]] = []
    fields: dict[str, None] = {}
    try:
        if landing is None:
            for table in files.read_files(Shelf(file=("1", made.body)), Reading(made.dialect), Window(context=context)):
                fields.update(dict.fromkeys(table.column_names))
                records += _plain(cast_all_utf8(table))
        else:
            with landing.writer("mutants", 1) as writer:
                for table in files.read_files(Shelf(file=("1", made.body)), Reading(made.dialect), Window(context=context)):
                    fields.update(dict.fromkeys(table.column_names))
                    text = cast_all_utf8(table)
                    records += _plain(text)
                    writer.write(text)
            _demand_balance(landing, writer.parts, records)
    except PipelineError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        if landing is not None:
            landing.remove("mutants", 1)
    return records, _NULS.sub("", json.dumps([list(fields), records], ensure_ascii=False).replace("\\\\u0000", ""))


def _plain(table: pa.Table) -> list[dict[str, str]]:
    return [{name: value for name, value in record.items() if value is not None} for record in table.to_pylist()]


def _identified(records: list[dict[str, str]]) -> bool:
    """False if the load ends with an error that says that there is no id."""
    return any(name in record for record in records for name in HEADERS.external_id)


def _demand_balance(landing: Landing, parts: list[Any], records: list[dict[str, str]]) -> None:
    """All that was read is landed, as it was read, and each record of it is either merged or quarantined."""
    landed: list[dict[str, str]] = []
    merged = quarantined = 0
    identified = _identified(records)
    for part in parts:
        for table in landing.tables("mutants", 1, part.part):
            landed += _plain(table)
            if identified:
                found = rejection.reasons(table, rejection.id_field(table, HEADERS, "mutants"))
                merged += found.null_count
                quarantined += len(found) - found.null_count
                assert pc.all(pc.match_substring(found, ": ")).as_py() is not False, "each has its reason"
    assert landed == records, "landed as it was read"
    assert not identified or merged + quarantined == len(records), "each is merged or quarantined"


def main() -> int:
    """Read mutants, and say which were read wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=None, help="number of the first mutant; by default another one each time")
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(10**9) if chosen.seed is None else chosen.seed
    print(f"{chosen.count:,} mutants from --seed {seed} on", flush=True)  # noqa: T201
    wrong, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(seed, seed + chosen.count):
            if said := fault(number, Landing(folder)):
                wrong += 1
                print(f"\n--seed {number} --count 1: {mutant(number)!r:.600}\n{said}", flush=True)  # noqa: T201
            if (number + 1 - seed) % 2_000 == 0:
                print(f"{number + 1 - seed:,} in {time.monotonic() - began:.0f} s, {wrong} wrong", flush=True)  # noqa: T201
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
