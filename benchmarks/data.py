"""Generated contacts: a CSV of 20 columns, the same every time, and the same with 1 % changed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

COLUMNS = (
    "id", "email", "phone", "first_name", "last_name", "company", "job_title", "street", "city", "region", "postal_code", "country",
    "created_at", "updated_at", "plan", "balance", "newsletter", "tags", "notes", "score",
)  # fmt: skip
_FIRST = [
    "Anna",
    "Björn",
    "Chloé",
    "David",
    "Elif",
    "Frida",
    "Giulia",
    "Håkon",
    "Inês",
    "Jürgen",
    "Katarzyna",
    "Liam",
    "Mara",
    "Nadia",
    "Olivia",
    "Paul",
    "Quentin",
    "Renée",
    "Søren",
    "Tom",
]
_LAST = [
    "Albrecht",
    "Bianchi",
    "Conti",
    "Dubois",
    "Eriksson",
    "Fernández",
    "García",
    "Hofmann",
    "Ivanova",
    "Jansen",
    "Kowalski",
    "Lindqvist",
    "Müller",
    "Novák",
    "Rossi",
]
_CITIES = ("Berlin", "München", "Hamburg", "Köln", "London", "Paris", "Madrid", "New York", "San José", "São Paulo")
_COUNTRIES = ("Germany", "DE", "Deutschland", "Germany", "United Kingdom", "France", "ES", "USA", "US", "Brazil")
_NOTES = ("", "", "", "called back", 'asked for "print"', "moved,\nnew address follows", "don't mail", "VIP", "N/A", "null")
_BLOCK = 100_000


def _pick(dice: np.random.Generator, values: tuple[str, ...] | list[str], n: int) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(dice.integers(0, len(values), n)))


def _text(numbers: np.ndarray, width: int = 0) -> pa.Array:
    texts = pc.cast(pa.array(numbers), pa.string())
    return pc.utf8_lpad(texts, width, "0") if width else texts


def _join(*parts: object) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def block(start: int, n: int, changed: float = 0.0) -> pa.Table:
    """Rows ``start`` to ``start + n``. ``changed`` is the share of rows whose phone and score differ from the original."""
    dice = np.random.default_rng(seed=7 + start)
    ids = np.arange(start, start + n)
    first, last = _pick(dice, _FIRST, n), _pick(dice, _LAST, n)
    place = pa.array(dice.integers(0, len(_CITIES), n))
    city, country = pa.array(_CITIES).take(place), pa.array(_COUNTRIES).take(place)
    plain = pc.ascii_lower(pc.utf8_replace_slice(first, 3, 99, ""))
    shout = pa.array(dice.random(n) < 0.1)
    email = _join(pc.if_else(shout, " ", ""), plain, ".", _text(ids), "@mail", _text(dice.integers(0, 50, n)), ".de")
    email = pc.replace_substring_regex(email, "[^ -~]", "x")
    digits = _text(dice.integers(0, 10**7, n), 7)
    german, british, american = (
        _join("+49 30 ", digits),
        _join("+44 20 7", digits),
        _join("+1 212 2", pc.utf8_slice_codeunits(digits, 0, 2), "-", pc.utf8_slice_codeunits(digits, 2, 6)),
    )
    national = _join("030/", digits)
    kind = dice.random(n)
    phone = pc.if_else(
        kind < 0.35, german, pc.if_else(kind < 0.55, british, pc.if_else(kind < 0.7, american, pc.if_else(kind < 0.82, national, "")))
    )
    created = pc.strftime(
        pa.array(np.datetime64("2020-01-01") + dice.integers(0, 200_000_000, n).astype("timedelta64[s]")), "%Y-%m-%dT%H:%M:%SZ"
    )
    updated = pc.strftime(pa.array(np.datetime64("2026-01-01") + ids.astype("timedelta64[s]")), "%Y-%m-%dT%H:%M:%SZ")
    score = _text(dice.integers(0, 100_000, n))
    if changed:
        hit = pa.array(np.random.default_rng(99 + start).random(n) < changed)
        score = pc.if_else(hit, _join(score, ".5"), score)
        phone = pc.if_else(hit, _join("+49 89 ", digits), phone)
    values = (
        _text(ids), email, phone, first, last, _pick(dice, ["Nordwind GmbH", "Blaumeer AG", "", "Casa Verde, S.L."], n),
        _pick(dice, ["Buyer", "Head of Sales", "", "CTO"], n), _join("Hauptstraße ", _text(dice.integers(1, 200, n))), city,
        pa.repeat("", n),
        _text(dice.integers(0, 100_000, n), 5), country, created, updated, _pick(dice, ["free", "pro", "team"], n),
        _join(_text(dice.integers(0, 9_999, n)), ".", _text(dice.integers(0, 100, n), 2)), _pick(dice, ["true", "false"], n),
        _pick(dice, ["a", "a|b", "", "b|c|d"], n), _pick(dice, _NOTES, n), score,
    )  # fmt: skip
    return pa.table(dict(zip(COLUMNS, values, strict=True)))


def shuffled(path: Path, original: Path) -> Path:
    """Write the contacts of another file in random order, every hundredth twice, with notes that do not compress."""
    if not path.exists():
        dice = np.random.default_rng(11)
        texts = pacsv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()))
        table = pacsv.read_csv(original, parse_options=pacsv.ParseOptions(newlines_in_values=True), convert_options=texts)
        noise = dice.integers(33, 127, (table.num_rows, 60), np.uint8)
        notes = pa.array([row.tobytes().decode() for row in noise])
        table = table.set_column(COLUMNS.index("notes"), "notes", notes)
        places = np.concatenate([np.arange(table.num_rows), np.arange(0, table.num_rows, 100)])
        dice.shuffle(places)
        part = path.with_suffix(".part")
        pacsv.write_csv(table.take(pa.array(places)), part, pacsv.WriteOptions(quoting_style="needed"))
        part.rename(path)
    return path


def write(path: Path, rows: int, changed: float = 0.0) -> Path:
    """Write the CSV; header first, ids ascending."""
    if not path.exists():
        part = path.with_suffix(".part")
        schema = pa.schema([(name, pa.string()) for name in COLUMNS])
        with pacsv.CSVWriter(str(part), schema, write_options=pacsv.WriteOptions(quoting_style="needed")) as out:
            for start in range(0, rows, _BLOCK):
                out.write_table(block(start, min(_BLOCK, rows - start), changed).cast(schema))
        part.rename(path)
    return path
