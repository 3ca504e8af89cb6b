"""Phone numbers: E.164, verdicts, and the quick path against the library's own example numbers."""

import random

import phonenumbers as pn
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity_pipeline.normalise import phone
from identity_pipeline.normalise.cells import INVALID, PLACEHOLDER, VALID

FORMATS = (pn.PhoneNumberFormat.E164, pn.PhoneNumberFormat.INTERNATIONAL, pn.PhoneNumberFormat.NATIONAL, pn.PhoneNumberFormat.RFC3966)
REGIONS = sorted(pn.SUPPORTED_REGIONS)
KINDS = sorted(pn.PhoneNumberType.values())


def library(text: str, region: str | None) -> str | None:
    """What the library says by itself; ``00`` stands for a plus where there is no region."""
    if region is None and text.startswith("00"):
        text = f"+{text[2:]}"
    try:
        number = pn.parse(text, region)
    except pn.NumberParseException:
        return None
    return pn.format_number(number, pn.PhoneNumberFormat.E164) if pn.is_valid_number(number) else None


def quick(pairs: list[tuple[str, str | None]]) -> list[str | None]:
    """The column path, every group large enough for it."""
    cells, regions = zip(*pairs, strict=True)
    times = phone._MIN_GROUP
    found = phone.plain(pa.array(cells * times, pa.string()), pa.array(regions * times, pa.string()))
    return found.to_pylist()[: len(pairs)]


def examples() -> list[tuple[str, str, str]]:
    """Each example number of the library as text, its region, its E.164 form."""
    found = []
    for region in REGIONS:
        for kind in KINDS:
            number = pn.example_number_for_type(region, kind)
            if number is not None:
                e164 = pn.format_number(number, pn.PhoneNumberFormat.E164)
                found += [(pn.format_number(number, form), region, e164) for form in FORMATS]
    return found


def agree(pairs: list[tuple[str, str | None]]) -> int:
    """Assert that what the quick path accepts is what the library says; how many it accepted."""
    found = quick(pairs)
    wrong = [(pair, value) for pair, value in zip(pairs, found, strict=True) if value is not None and value != library(*pair)]
    assert wrong == []
    cells, regions = zip(*pairs, strict=True)
    times = phone._MIN_GROUP
    hopeless = phone.hopeless(pa.array(cells * times, pa.string()), pa.array(regions * times, pa.string()))[: len(pairs)]
    assert [pair for pair, none in zip(pairs, hopeless, strict=True) if none and phone.read(*pair) != ((None, INVALID),)] == []
    return sum(value is not None for value in found)


def test_every_example_number_of_the_library_is_read_in_four_formats():
    texts = examples()
    assert len(texts) > 4000
    wrong = [(text, region) for text, region, e164 in texts if phone.judge(text, region) not in ((e164, VALID), (None, PLACEHOLDER))]
    assert wrong == []
    placeholders = {e164 for text, region, e164 in texts if phone.judge(text, region) == (None, PLACEHOLDER)}
    assert len(placeholders) < 25


def test_the_quick_path_agrees_with_the_library_on_all_example_numbers():
    pairs: list[tuple[str, str | None]] = [(text, region) for text, region, _ in examples()]
    assert agree(pairs) > len(pairs) / 4
    assert agree([(text, None) for text, _ in pairs]) > len(pairs) / 8
    others = random.Random(2).choices(REGIONS, k=len(pairs))
    agree([(text, region) for (text, _), region in zip(pairs, others, strict=True)])


def test_the_quick_path_agrees_with_the_library_on_digits_near_a_number():
    """Digits changed, left out and put in front of examples: prefixes, calling codes and ``00`` where they are least expected."""
    r = random.Random(11)
    pairs: list[tuple[str, str | None]] = []
    for text, region, e164 in examples() * 2:
        digits = list(r.choice([text, e164[1:], e164, e164[len(str(pn.country_code_for_region(region))) + 1 :]]).replace("tel:", ""))
        for _ in range(r.randint(0, 2)):
            at = r.randrange(len(digits))
            digits[at : at + r.randint(0, 1)] = r.choice(["0", "1", "8", "9", "", "00", "5"])
        prefix = r.choice(
            ["", "", "0", "00", "-00", ".(00)", "1", "8", "06", "011", "+", "+1", "+44", "(0)", f"+{pn.country_code_for_region(region)} 0"]
        )
        pairs.append((prefix + "".join(digits), r.choice([region, region, None, "DE", "US", "GB", "CA", "IT", "RU"])))
    assert agree(pairs) > 500


@pytest.mark.parametrize("region", ["US", "CA", "GB", "DE", "FR", "IT", "AU", "HU", "RU", "BR", "MX", "GG", "KZ", "AR"])
def test_the_quick_path_agrees_with_the_library_on_random_digits(region: str):
    r = random.Random(region)
    code = str(pn.country_code_for_region(region))
    fronts = ["", "0", "1", "8", "00" + code, "+" + code, code, "+" + code + "0", "011" + code, "06"]
    pairs = [(r.choice(fronts) + "".join(r.choices("0123456789", k=r.randint(6, 11))), r.choice([region, None])) for _ in range(4000)]
    agree(pairs)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.text("+0123456789 ().-/#x", max_size=20), st.sampled_from(["US", "CA", "GB", "DE", "IT", None, "XX"])),
        min_size=1,
        max_size=8,
    )
)
def test_the_quick_path_agrees_with_the_library_on_any_spelling(pairs: list[tuple[str, str | None]]):
    agree(pairs)


numbers = st.one_of(
    st.text(max_size=30),
    st.text("+0123456789 ()-;,x", max_size=30),
    st.sampled_from([text for text, _, _ in examples()[::37]]),
)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, st.sampled_from(["US", "DE", None, "AQ"])), min_size=1, max_size=8))
def test_both_paths_say_the_same(pairs: list[tuple[str, str | None]]):
    pairs = pairs * phone._MIN_GROUP
    cells, regions = zip(*pairs, strict=True)
    found = phone.find(pa.array(cells, pa.string()), pa.array(regions, pa.string()))
    expected = [(row, *judged) for row, pair in enumerate(pairs) for judged in phone.read(*pair)]
    assert list(zip(found.rows.tolist(), found.values.to_pylist(), found.verdicts.tolist(), strict=True)) == expected


def test_numbers_of_other_countries_are_refused_by_columns():
    cells = ["030/5901331", "(030) 590-1331", "+1 030 590 1331", "0049 99", "12345678", "0303333333", "030/33", "5901331"]
    found = phone.hopeless(pa.array(cells * 20, pa.string()), pa.array(["US"] * 160, pa.string()))
    assert found[:8].tolist() == [True, True, True, False, False, False, False, True]


@pytest.mark.parametrize("region", ["US", "AU", "RU", "JP", "DE"])
@pytest.mark.parametrize("before", ["", "-", "/", ".", ")", "-(", "- "])
def test_a_call_abroad_is_one_whatever_stands_before_its_zeros(before: str, region: str):
    cells = [f"{before}0086 10 6552 9988"] * 20
    found = phone.find(pa.array(cells, pa.string()), pa.array([region] * 20, pa.string()))
    assert found.values.to_pylist() == ["+861065529988"] * 20


def test_common_spellings_take_the_quick_path():
    pairs: list[tuple[str, str | None]] = [
        ("(415) 867-5309", "US"), ("415.867.5309", "US"), ("+1 415 867 5309", None), ("1-415-867-5309", "US"), ("416-867-5309", "CA"),
        ("020 7946 0018", "GB"), ("07400 123456", "GB"), ("+44 (20) 7946 0018", None), ("030/23125 0", "DE"), ("0151 23456789", "DE"),
        ("+49 30 231250", None), ("004930231250", None), ("0049 30 231250", "DE"),
        ("392 1234567", "IT"), ("800-234-5678", "US"),
    ]  # fmt: skip
    assert None not in quick(pairs)


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("030 231250", "DE", "+4930231250"),
        ("0049 30 231250", None, "+4930231250"),
        ("0049 30 231250", "US", "+4930231250"),
        ("(00 49) 30 231250", None, "+4930231250"),
        ("+49 (0)30 231250", None, "+4930231250"),
        ("+1 415 867 5309 ext. 12", None, "+14158675309"),
        ("415-867-5309 x123", "US", "+14158675309"),
        ("tel:+1-415-867-5309;ext=9", None, "+14158675309"),
        ("Mobile: 0151 23456789", "DE", "+4915123456789"),
        ("0151 23456789 (mobil)", "DE", "+4915123456789"),
        ("\u202a+49\u00a030\u00a0231250\u202c", None, "+4930231250"),
        ("\uff0b\uff14\uff19 \uff13\uff10 \uff12\uff13\uff11\uff12\uff15\uff10", None, "+4930231250"),
        ("+39 06 6982", None, "+39066982"),
        ("+41 44 668 18 00", "US", "+41446681800"),
    ],
)  # fmt: skip
def test_a_certain_number_becomes_e164(text: str, region: str | None, number: str):
    assert phone.judge(text, region) == (number, VALID)


@pytest.mark.parametrize(
    ("text", "region"),
    [("030 231250", None), ("415-867-5309", None), ("1-800-FLOWERS", "US"), ("call Bob 415-867-5309", "US"), ("+999 3456789", None),
     ("867-5309", "US"),
     ("abc", "US"), ("030 231250", "AQ"), ("+49", "DE"), ("+1 415 867 53091", None), ("415-867-5309 after six", "US"),
     ("9" * 300 + "1", "US")],
)  # fmt: skip
def test_what_is_not_certain_is_invalid(text: str, region: str | None):
    assert phone.judge(text, region) == (None, INVALID)


@pytest.mark.parametrize(
    ("text", "region"),
    [("000", None), ("0000000000", "US"), ("555-555-5555", "US"), ("+1 555 555 5555", None), ("1234567890", "US"),
     ("+1 (123) 456-7890", None),
     ("123456789", "DE"), ("0123456789", "GB"), ("999-999-9999", "US"), ("+49 000000", None), ("n/a", "US"), ("-", None), ("none", None),
     ("11111111", "SG"), ("9876543210", "IN"), ("222 222 2222", "US"), ("+852 2222 2222", None),
     ("888-888-8888", "US"), ("88888888", "SG")],
)  # fmt: skip
def test_a_placeholder_is_no_identifier(text: str, region: str | None):
    assert phone.judge(text, region) == (None, PLACEHOLDER)


@pytest.mark.parametrize(
    ("text", "region"),
    [("0153059351633", "IL"), ("030 231250", "AQ"), ("0049 30 231250", "US"), ("(0)0 49 30 231250", None), ("+49 030 231250", None)],
)
def test_what_has_two_readings_does_not_take_the_quick_path(text: str, region: str | None):
    """``0153`` is a call abroad from Israel, and yet the digits after the zero are a number there."""
    assert quick([(text, region)]) == [None]


@pytest.mark.parametrize(("text", "region"), [("888-888-8888", "US"), ("+6588888888", None), ("22222222", "HK"), ("9876543210", "IN")])
def test_a_placeholder_does_not_take_the_quick_path(text: str, region: str | None):
    assert quick([(text, region)]) == [None]


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("030 231250; 0151 23456789", ["+4930231250", "+4915123456789"]),
        ("030 231250, 0151 23456789", ["+4930231250", "+4915123456789"]),
        ("030 231250\n0151 23456789", ["+4930231250", "+4915123456789"]),
        ('["030 231250", "+1 415 867 5309"]', ["+4930231250", "+14158675309"]),
        ('[{"value":"030 231250"},{"value":"0151 23456789","primary":true}]', ["+4915123456789", "+4930231250"]),
        ('[{"number": "+49 30 231250"}]', ["+4930231250"]),
        ("[4930231250]", ["+4930231250"]),
        ("+49 30 901820 ::: +49 30 901821", ["+4930901820", "+4930901821"]),
        ("", []),
    ],
)
def test_a_cell_may_hold_several(cell: str, found: list[str]):
    assert [value for value, verdict in phone.read(cell, "DE") if verdict == VALID] == found


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("30901820.0", "+4930901820"),
        (" 4930901820.0", "+4930901820"),
        ("+4930901820.00 ", "+4930901820"),
        ("15123456789.0", "+4915123456789"),
        ("030.901820", "+4930901820"),
        ("0.30.901820", "+4930901820"),
        ("4.930901820e10", None),
    ],
)
def test_what_stands_behind_the_point_of_a_float_is_no_digit(text: str, number: str | None):
    for cells in ([text], [text] * 50):  # one by one, and as a column
        found = phone.find(pa.array(cells), pa.array(["DE"] * len(cells)))
        assert found.values.to_pylist() == [number] * len(cells)
