"""Phone numbers: E.164 by ``phonenumbers``, verdict, and the numbers that only look like an identifier.

A number counts when the library calls it *valid* (its national pattern exists), not merely
*possible* (its length does). Refusing a real number loses one identifier, shows as ``invalid`` and
heals when the library learns the new range and the record is normalised again. Accepting a wrong
one merges strangers: invented numbers and typing errors are nearly always of a possible length.

Certain means: a ``+`` (or ``00``) and a calling code, or a national number and the record's country
(else the source's default region). Letters are never turned into digits; extensions are dropped.

Common spellings are read by columns (:func:`plain`): it asks the library's own patterns about one
calling code at a time and takes only what cannot be read in two ways; the rest goes to the library.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import phonenumbers as pn
import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.normalise.cells import (
    INVALID,
    PLACEHOLDER,
    VALID,
    Found,
    Judged,
    found_of,
    joined,
    listed,
    once_each,
    truth,
    visible,
    words,
)

_SAME = "|".join(f"{digit}+" for digit in "0123456789")
_COUNTED = r"0?12345(?:6(?:7(?:8(?:90?)?)?)?)?|0?9876(?:5(?:4(?:3(?:2(?:10?)?)?)?)?)?|0123456789"
_COUNTED_RE, _SAME_RE = re.compile(_COUNTED), re.compile(_SAME)
_JUNK_RE = re.compile(rf"\d{{0,4}}?(?:{_COUNTED}|" + "|".join(f"{digit}{{6,}}" for digit in "0123456789") + ")")
_WORDS = words("none na nan nil null unknown undefined notprovided notavailable nophone nonumber no tbd x xx xxx keine ka ninguno test")

_SPELLING = r"^[ (]*\+?[0-9 ().\-/]{5,40}$"
_KIND = r"(?:tel(?:e(?:phone|fon))?|phone|ph|mob(?:ile|il)?|cell|handy|office|work|home|fon)"
_LABEL = re.compile(rf"^{_KIND}\b[.:\s]*|\s*\({_KIND}\.?\)$", re.IGNORECASE)
_EXTENSION = re.compile(
    r"(?:;ext=|,?\s*\(?\s*(?:ext(?:ensi[oó]n)?|e?xtn?|anexo|int|доб(?:авочный)?|x|#|~|durchwahl|poste)[.:\s]*)\d{1,9}\s*[#)]?\s*$",
    re.IGNORECASE,
)
_FLOAT = r"^[ ]*\+?[0-9]+\.0+[ ]*$"
"""A number that a program took for a float: what stands behind the point are no digits."""
_FLOAT_RE = re.compile(_FLOAT)
_ZEROS = re.compile(r"[^\d+]*00(?=[\s().\-/]*[1-9])")
_DOUBTFUL = rf"^\+?(?:\d{{0,6}}|{_JUNK_RE.pattern}|\d*(?:{_SAME.replace('+', '{3}')}))$"
"""Digits that are, or that the library may cut down to, a placeholder."""
_MAX_LENGTH = 250  # of one piece; the library reads no longer one
_MIN_GROUP = 16  # below it the library is quicker than compiling a pattern for the column
_PLAIN_PARSING = {"0|180020": "0", "(183[12])|0": "0"}
"""Prefixes to strip that are not digits alone, yet take exactly these digits off a number that begins with them."""


def _e164(text: str, region: str | None) -> tuple[str | None, str]:
    """E.164 of a valid number, and its national digits where the text can be read at all."""
    try:
        number = pn.parse(text, region)
    except pn.NumberParseException:
        return None, ""
    national = pn.national_significant_number(number)
    return (pn.format_number(number, pn.PhoneNumberFormat.E164) if pn.is_valid_number(number) else None), national


def judge(piece: str, region: str | None) -> Judged | None:
    """One value as E.164 and verdict; None if it is blank."""
    text = visible(piece).replace("\u200c", "").replace("\u200d", "").strip()
    if not text:
        return None
    if len(text) > _MAX_LENGTH:
        return None, INVALID
    text = _LABEL.sub("", text)
    if _FLOAT_RE.match(text):
        text = text.partition(".")[0]
    typed = "".join(str(int(c)) for c in text if c.isdecimal())
    if not typed:
        return None, PLACEHOLDER if re.sub(r"[\W_]", "", text).lower() in _WORDS | {""} else INVALID
    if any(c.isalpha() for c in _EXTENSION.sub("", text)):
        return None, INVALID
    number, national = None, ""
    for spelling, where in ((text, region), (_ZEROS.sub("+", text, count=1), None)):
        if where is not None or "+" in spelling or "＋" in spelling:  # noqa: RUF001 - the plus sign of full-width text
            number, national = _e164(spelling, where)
        if number is not None:
            break
    if (
        _COUNTED_RE.fullmatch(typed)
        or _SAME_RE.fullmatch(typed)
        or _SAME_RE.fullmatch(national)
        or (number is None and _JUNK_RE.fullmatch(typed))
    ):
        return None, PLACEHOLDER
    return (None, INVALID) if number is None else (number, VALID)


def split(cell: str) -> list[str]:
    """The values a cell holds: a JSON list, or separated by ``;``, ``:::`` or line ends, or by commas between long enough numbers."""
    items = listed(cell.strip())
    pieces: list[str] = []
    for item in [cell] if items is None else items:
        for part in re.split(r"[\r\n]|;(?!ext=)|:::", item):
            words = part.split(",")
            pieces += words if len(words) > 1 and all(sum(map(str.isdecimal, word)) >= 7 for word in words if word.strip()) else [part]
    return pieces


def read(cell: str, region: str | None) -> tuple[Judged, ...]:
    """Every value of a cell, judged."""
    return tuple(judged for piece in split(cell) if (judged := judge(piece, region)) is not None)


@dataclass(frozen=True)
class _Numbers:
    """The library's pattern for some kind of number, and the lengths it allows (none: any)."""

    pattern: str
    lengths: tuple[int, ...]

    def match(self, numbers: pa.Array) -> pa.Array:
        matched = pc.match_substring_regex(numbers, f"^(?:{self.pattern})$")
        return pc.and_(matched, pc.is_in(pc.binary_length(numbers), pa.array(self.lengths, pa.int32()))) if self.lengths else matched


@dataclass(frozen=True)
class _Plan:
    """A region's numbering plan, as far as the column path uses it."""

    region: str
    code: str
    abroad: str
    parsing: str | None
    prefix: str | None
    """What stands before a national number; empty if nothing does; None if it takes the library to say."""
    general: _Numbers
    kinds: tuple[_Numbers, ...]
    leading: str | None

    def valid(self, numbers: pa.Array) -> pa.Array:
        """Which national significant numbers the library calls valid in this plan (fixed, mobile and toll-free ones)."""
        some = self.kinds[0].match(numbers)
        for kind in self.kinds[1:]:
            some = pc.or_(some, kind.match(numbers))
        some = pc.and_(some, self.general.match(numbers))
        return some if self.leading is None else pc.and_(some, pc.match_substring_regex(numbers, f"^(?:{self.leading})"))


def _numbers(description: pn.PhoneNumberDesc | None) -> _Numbers | None:
    if description is None or not description.national_number_pattern:
        return None
    return _Numbers(description.national_number_pattern, tuple(n for n in description.possible_length or () if n > 0))


@cache
def _plan(region: str) -> _Plan | None:
    known = pn.PhoneMetadata.metadata_for_region(region, None)
    if known is None:
        return None
    general = _numbers(known.general_desc)
    described = (_numbers(kind) for kind in (known.fixed_line, known.mobile, known.toll_free))
    kinds = tuple(dict.fromkeys(numbers for numbers in described if numbers is not None))
    if general is None or not kinds:
        return None
    parsing = known.national_prefix_for_parsing
    prefix = "" if parsing is None else parsing if parsing.isdigit() else _PLAIN_PARSING.get(parsing)
    code = str(known.country_code)
    if known.national_prefix_transform_rule or (prefix and prefix != code and (code.startswith(prefix) or prefix.startswith(code))):
        prefix = None
    return _Plan(region, code, known.international_prefix or "$^", parsing, prefix, general, kinds, known.leading_digits)


@cache
def _main_plan(code: str) -> _Plan | None:
    """The plan that the library reads numbers with this calling code by."""
    regions = pn.COUNTRY_CODE_TO_REGION_CODE.get(int(code), ("001",))
    return None if regions[0] == "001" else _plan(regions[0])


@cache
def _second_plan(code: str) -> tuple[_Plan, str] | None:
    """Another plan of the same calling code and shape (Canada's), and the leading digits that the library gives to others first."""
    if code != "1":
        return None
    first, plan = _plan("US"), _plan("CA")
    if first is None or plan is None or (plan.general.pattern, plan.leading) != (first.general.pattern, None):
        return None
    regions = pn.COUNTRY_CODE_TO_REGION_CODE[1]
    before = [known.leading for region in regions[: regions.index("CA")] if (known := _plan(region)) is not None and known.leading]
    return plan, "|".join(before)


@cache
def _code_at(head: str) -> str | None:
    """The calling code that ``head`` begins with. No code is the beginning of another."""
    return next(
        (head[:n] for n in (1, 2, 3) if head[:n].isdigit() and int(head[:n]) in pn.COUNTRY_CODE_TO_REGION_CODE and head[0] != "0"), None
    )


def _valid(code: str, numbers: pa.Array) -> pa.Array:
    plan = _main_plan(code)
    if plan is None:
        return pa.array(np.zeros(len(numbers), bool))
    valid = plan.valid(numbers)
    if (second := _second_plan(code)) is not None:
        other = second[0].valid(numbers)
        valid = pc.or_(valid, pc.and_not(other, pc.match_substring_regex(numbers, f"^(?:{second[1]})")) if second[1] else other)
    if plan.parsing is not None:  # the library may take a prefix off it
        valid = pc.and_not(valid, _begins(numbers, plan.parsing))
    return pc.and_not(valid, pc.match_substring_regex(numbers, f"^(?:{_SAME})$"))


def _begins(numbers: pa.Array, pattern: str) -> pa.Array:
    return pc.starts_with(numbers, pattern) if pattern.isdigit() else pc.match_substring_regex(numbers, f"^(?:{pattern})")


def _national(plan: _Plan, digits: pa.Array) -> pa.Array:
    """National significant numbers of digits typed inside the plan's country; null where they begin like a call abroad.

    Digits that begin with the country's own calling code need no care: the library takes it off only
    if the number fits the plan better without it, and :func:`_valid` wants it to fit as it is.
    """
    if plan.prefix:
        bare = pc.if_else(pc.starts_with(digits, plan.prefix), pc.utf8_slice_codeunits(digits, len(plan.prefix)), digits)
    else:
        bare = digits
    return pc.if_else(pc.match_substring_regex(digits, f"^(?:{plan.abroad})"), pa.scalar(None, pa.string()), bare)


@cache
def _national_plan(region: str) -> _Plan | None:
    """The plan of a region whose numbers, typed inside it, need no more than the prefix taken off."""
    plan = _plan(region)
    if plan is None or plan.prefix is None:
        return None
    second = _second_plan(plan.code)
    return plan if plan is _main_plan(plan.code) or (second is not None and plan is second[0]) else None


def _mapped(keys: pa.Array, read: Callable[[str], object], type: pa.DataType) -> pa.Array:  # noqa: A002 - Arrow's word
    encoded = keys.dictionary_encode()
    return pa.array([read(key) for key in encoded.dictionary.to_pylist()], type).take(encoded.indices)


def _groups(keys: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """Each key that is frequent enough, with its positions."""
    encoded = keys.dictionary_encode()
    codes = pc.fill_null(encoded.indices, -1).to_numpy()
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
    for i, key in enumerate(encoded.dictionary.to_pylist()):
        if bounds[i + 1] - bounds[i] >= _MIN_GROUP:
            yield key, pa.array(order[bounds[i] : bounds[i + 1]])


def _significant(digits: pa.Array, zeros: pa.Array, regions: pa.Array) -> Iterator[tuple[str, pa.Array, pa.Array]]:
    """Calling code, positions and national significant numbers, one group of numbers at a time."""
    plus = pc.starts_with(digits, "+")
    dialled = _mapped(regions, lambda region: (plan := _plan(region)) is not None and plan.abroad == "00", pa.bool_())
    zeros = pc.and_(zeros, pc.fill_null(dialled, True))
    abroad = truth(pc.or_(plus, zeros))
    at = pa.array(np.flatnonzero(abroad))
    bodies = pc.utf8_slice_codeunits(pc.if_else(plus, pc.binary_join_element_wise("+", digits, ""), digits).take(at), 2)
    for code, where in _groups(_mapped(pc.utf8_slice_codeunits(bodies, 0, 3), _code_at, pa.string())):
        yield code, at.take(where), pc.utf8_slice_codeunits(bodies.take(where), len(code))
    at = pa.array(np.flatnonzero(~abroad))
    for region, where in _groups(regions.take(at)):
        if (plan := _national_plan(region)) is not None:
            yield plan.code, at.take(where), _national(plan, digits.take(at.take(where)))


def _spelled(cells: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Of the cells in a common spelling: their positions, their digits (after a ``+``, if there is one), and whether they begin with 00."""
    shaped = pa.array(np.flatnonzero(truth(pc.match_substring_regex(cells, _SPELLING))))
    digits = cells.take(shaped)
    floats = pc.match_substring_regex(digits, _FLOAT)
    if pc.any(floats).as_py():
        digits = pc.if_else(floats, pc.replace_substring_regex(digits, r"\.0+ *$", ""), digits)
    zeros = pc.match_substring_regex(digits, "^[ (]*00")
    for mark in " -()./":
        digits = pc.replace_substring(digits, mark, "")
    return shaped, digits, zeros


def plain(cells: pa.Array, regions: pa.Array) -> pa.Array:
    """E.164 of the cells that hold one valid number in a common spelling; null for those only :func:`read` can judge."""
    shaped, digits, zeros = _spelled(cells)
    certain = ~truth(pc.match_substring_regex(digits, rf"^\+?(?:{_COUNTED})$"))
    positions, numbers = [np.zeros(0, np.int64)], [pa.array([], pa.string())]
    for code, where, nationals in _significant(digits, zeros, regions.take(shaped)):
        sure = truth(_valid(code, nationals)) & certain[where.to_numpy()]
        positions.append(where.filter(pa.array(sure)).to_numpy())
        numbers.append(pc.binary_join_element_wise(f"+{code}", nationals.filter(pa.array(sure)), ""))
    where = shaped.to_numpy()[np.concatenate(positions)]
    index = np.full(len(cells), -1, np.int64)
    index[where] = np.arange(len(where))
    return pa.concat_arrays(numbers).take(pa.array(index, mask=index < 0))


@cache
def _at_the_end(code: str) -> str | None:
    """A pattern that finds what could be a number of this calling code at the end of longer digits.

    Whatever stands before a number, the library takes off it: a valid number is the end of the digits
    that were typed. None where it may add digits.
    """
    regions = pn.COUNTRY_CODE_TO_REGION_CODE[int(code)]
    if "001" in regions or _adds_digits(regions[0]):
        return None
    found = (pn.PhoneMetadata.metadata_for_region(region, None) for region in regions)
    patterns = (numbers.pattern for known in found if known is not None and (numbers := _numbers(known.general_desc)) is not None)
    return f"(?:{'|'.join(dict.fromkeys(patterns))})$"


@cache
def _adds_digits(region: str) -> bool:
    known = pn.PhoneMetadata.metadata_for_region(region, None)
    return known is None or not (known.national_prefix_transform_rule or "\\").startswith("\\")


def hopeless(cells: pa.Array, regions: pa.Array) -> npt.NDArray[np.bool_]:
    """Which cells hold digits in a common spelling that end in no number of their calling code, and are no placeholder."""
    found = np.zeros(len(cells), bool)
    shaped, digits, _ = _spelled(cells)
    # Whatever stands before two zeros, :func:`judge` reads them as the plus of a call abroad.
    regions, plus, zeros = regions.take(shaped), pc.starts_with(digits, "+"), pc.starts_with(digits, "00")

    def mark(where: npt.NDArray[np.int64], bodies: pa.Array, code: str) -> None:
        if (pattern := _at_the_end(code)) is not None:
            found[shaped.to_numpy()[where]] = ~truth(pc.match_substring_regex(bodies, pattern))

    at = np.flatnonzero(truth(plus))
    bodies = pc.utf8_slice_codeunits(digits.take(pa.array(at)), 1)
    for code, where in _groups(_mapped(pc.utf8_slice_codeunits(bodies, 0, 3), _code_at, pa.string())):
        mark(at[where.to_numpy()], pc.utf8_slice_codeunits(bodies.take(where), len(code)), code)
    at = np.flatnonzero(~truth(pc.or_(plus, zeros)))
    for region, where in _groups(regions.take(pa.array(at))):
        known, rows = pn.PhoneMetadata.metadata_for_region(region, None), at[where.to_numpy()]
        if known is not None and not _adds_digits(region):
            abroad = pc.match_substring_regex(digits.take(pa.array(rows)), f"^(?:{known.international_prefix or '$^'})")
            rows = rows[~truth(abroad)]
            mark(rows, digits.take(pa.array(rows)), str(known.country_code))
    doubtful = pc.match_substring_regex(digits, _DOUBTFUL)
    found[shaped.to_numpy()[truth(doubtful)]] = False
    return found


def find(column: pa.Array, regions: pa.Array) -> Found:
    """The numbers of one source column; ``regions`` are the records' countries, null where there is none."""
    rows = np.flatnonzero(truth(column.is_valid()))
    cells, places = column.drop_null(), regions.take(pa.array(rows))
    quick = plain(cells, places)
    sure = truth(quick.is_valid())
    if sure.all():
        return Found(rows, quick, np.full(len(rows), VALID, np.int8))
    verdicts = np.full(len(rows), VALID, np.int8)
    left = np.flatnonzero(~sure)
    none = hopeless(cells.take(pa.array(left)), places.take(pa.array(left)))
    sure[left[none]], verdicts[left[none]] = True, INVALID
    known, left = Found(rows[sure], quick.filter(pa.array(sure)), verdicts[sure]), pa.array(left[~none])
    keys = zip(cells.take(left).to_pylist(), places.take(left).to_pylist(), strict=True)
    return joined(known, found_of(rows[left.to_numpy()], once_each(keys, lambda key: read(*key))))
