"""Names and other free text: one line, visible characters, NFC; and a full name's parts.

A full name is split only when its record has no parts, and only where the split is certain enough:
the last word is the family name, with the particles before it (``Ludwig van Beethoven``);
``Last, First`` is turned round; titles and suffixes belong to no part. A single word may be either
name and stays in ``full_name`` alone, as do names in scripts that put the family first, anything
with digits or an ``@``, and what looks like a company.
"""

import re
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.normalise.cells import JOINERS, once_each, truth, visible, words

STAYS = "!-~¡-¬®-ſЀ-ҁҊ-ӿぁ-ゖァ-ヺー一-鿿가-힣"
"""Ranges of characters that are visible, no space, and in NFC beside any other of them: Latin, Cyrillic, kana, ideographs, Hangul."""
_TIDY = rf"^[{STAYS}]+(?: [{STAYS}]+)*$"
_JOINERS = str.maketrans("", "", JOINERS)

_PARTICLES = words(
    "af da dal dalla de degli dei del dela della delle dello den der des di dos du la las le los 't ten ter van vande vander von vom "
    "zu zum zur"
)
_SMALL_PARTICLES = words("al bat ben bin bint das do el ibn lo ould san santa st te tot und")  # names too, when they begin with a capital
_BETWEEN_SURNAMES = words("y e i")
_TITLES = words(
    "mr mrs ms miss mx dr prof professor sir dame lord lady rev sr sra srta doña herr frau hr fru mme mlle dott dottssa dipl-ing capt "
    "col gen lt sgt"
)
_SUFFIXES = words("jr sr ii iii iv md phd dds esq cpa mba msc bsc dvm llm obe mbe cbe")
_COMPANY = words(
    "inc llc ltd limited gmbh ag kg ohg ug corp corporation co company plc bv nv sa sarl sas srl spa ab as oy aps pty lp llp ev eg "
    "group holding foundation university stiftung verein"
)
_FAMILY_FIRST = re.compile("[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]")
_TWO_WORDS = r"^(?P<first>[A-Za-z][A-Za-z'\-]{2,}) (?P<last>[A-Za-z][A-Za-z'\-]{3,})$"


def tidy(text: str) -> str | None:
    """Free text on one line, without invisible characters, in NFC; None if nothing is left."""
    line = " ".join(visible(text).translate(_JOINERS).split())
    return (line if line.isascii() else unicodedata.normalize("NFC", line)) or None


def clean(column: pa.Array) -> pa.Array:
    """A column of free text, tidied; blank becomes null."""
    untidy = ~truth(pc.or_kleene(pc.match_substring_regex(column, _TIDY), column.is_null()))
    if not untidy.any():
        return column
    mask = pa.array(untidy)
    return pc.replace_with_mask(column, mask, pa.array(once_each(column.filter(mask).to_pylist(), tidy), pa.string()))


def _word(token: str) -> str:
    return token.replace(".", "").replace("’", "'").strip(",").lower()  # noqa: RUF001 - the apostrophe people type


def parts(full_name: str) -> tuple[str | None, str | None]:
    """First and last name of a tidied full name; None each where it is not certain."""
    if re.search(r"[\d@/&;:()<>\"]", full_name) or _FAMILY_FIRST.search(full_name):
        return None, None
    sections = [section.split() for section in full_name.split(",")]
    while len(sections) > 1 and all(_word(token) in _SUFFIXES for token in sections[-1]):
        sections.pop()
    if len(sections) > 2 or any(_word(token) in _COMPANY for section in sections for token in (section[-1:] if section else [])):
        return None, None
    if len(sections) == 2:
        last, first = sections[0], _without_titles(sections[1])
        return (" ".join(first), " ".join(last)) if first and last else (None, None)
    tokens = _without_titles(sections[0])
    while len(tokens) > 2 and _word(tokens[-1]) in _SUFFIXES:
        tokens.pop()
    if len(tokens) < 2:
        return None, None
    if tokens[0] in _PARTICLES | _SMALL_PARTICLES:  # "von Trapp": no first name before a particle in small letters
        return None, " ".join(tokens)
    start = len(tokens) - 1
    while start > 1 and (_word(tokens[start - 1]) in _PARTICLES or tokens[start - 1] in _SMALL_PARTICLES):
        start -= 1
    if start > 2 and tokens[start - 1] in _BETWEEN_SURNAMES:  # "José Ortega y Gasset"
        start -= 2
    return " ".join(tokens[:start]), " ".join(tokens[start:])


def _without_titles(tokens: list[str]) -> list[str]:
    start = 0
    while start < len(tokens) and _word(tokens[start]) in _TITLES:
        start += 1
    return tokens[start:]


def complete(full: pa.Array, first: pa.Array, last: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Full, first and last names, each made from the others where a record lacks it."""
    bare = pc.and_(pc.is_null(first), pc.is_null(last))
    split = pc.and_(bare, full.is_valid())
    if pc.any(split).as_py():
        first, last = _split(full, first, last, split)
    lacking = pc.and_(full.is_null(), pc.invert(bare))
    if pc.any(lacking).as_py():
        # "skip" for nulls would leave out rows in which all are null: https://github.com/narwhals-dev/narwhals/issues/3965
        full = pc.coalesce(full, pc.binary_join_element_wise(first, last, " "), first, last)
    return full, first, last


def _split(full: pa.Array, first: pa.Array, last: pa.Array, mask: pa.Array) -> tuple[pa.Array, pa.Array]:
    names = full.filter(mask)
    words = pc.extract_regex(names, _TWO_WORDS)
    one, two = pc.struct_field(words, "first"), pc.struct_field(words, "last")
    special = pa.array(sorted(_TITLES | _PARTICLES | _SMALL_PARTICLES | _SUFFIXES | _COMPANY), pa.string())
    plain = pc.invert(pc.or_(pc.is_in(pc.ascii_lower(one), special), pc.is_in(pc.ascii_lower(two), special)))
    hard = pa.array(~(truth(words.is_valid()) & truth(plain)))
    if pc.any(hard).as_py():
        found = once_each(names.filter(hard).to_pylist(), parts)
        one = pc.replace_with_mask(one, hard, pa.array([pair[0] for pair in found], pa.string()))
        two = pc.replace_with_mask(two, hard, pa.array([pair[1] for pair in found], pa.string()))
    return pc.replace_with_mask(first, mask, one), pc.replace_with_mask(last, mask, two)
