"""Countries: what people write, as ISO 3166-1 alpha-2."""

import subprocess
import sys

import pyarrow as pa
import pycountry
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity_pipeline.normalise import country

CODES = {known.alpha_2 for known in pycountry.countries}


@pytest.mark.parametrize(
    ("code", "spellings"),
    [
        (
            "US",
            "US|us|USA|U.S.A.|U.S.|United States|united states of america|The United States|America|Estados Unidos|États-Unis",
        ),
        ("GB", "GB|UK|U.K.|United Kingdom|Great Britain|England|Scotland|Wales|Northern Ireland|GBR|Vereinigtes Königreich"),
        ("DE", "DE|de|DEU|Germany|GERMANY|Deutschland|Allemagne|Alemania|Германия|ドイツ|德国"),
        ("FR", "France|Frankreich|Francia|FRA"),
        ("CH", "Schweiz|Suisse|Svizzera|Switzerland"),
        ("AT", "Österreich|Osterreich|Austria"),
        ("NL", "Netherlands|The Netherlands|Holland|Nederland"),
        ("KR", "South Korea|Korea, Republic of|Republic of Korea|KR"),
        ("CI", "Côte d'Ivoire|Cote d\u2019Ivoire|Ivory Coast"),
        ("TR", "Turkey|Türkiye|Turkiye"),
        ("CZ", "Czechia|Czech Republic"),
        ("RU", "Russia|Russian Federation"),
        ("VN", "Vietnam|Viet Nam"),
        ("GE", "Georgia"),
        ("NE", "Niger"),
        ("NG", "Nigeria"),
        ("GR", "Greece|EL"),
        ("TW", "Taiwan"),
        ("BO", "Bolivia"),
        ("JP", "Japan| 日本 "),
        ("RU", "Россия|РФ|Rusia|Russie|Rossija|Российская Федерация"),
        ("HR", "Hrvatska|Croatia|Kroatien"),
        ("RS", "Srbija|Србија|Serbien"),
        ("SI", "Slovenija|Slowenien"),
        ("BG", "България|Bulgarien"),
        ("HU", "Magyarország|Ungarn"),
        ("UZ", "O\u2018zbekiston|O\u02bbzbekiston"),
        ("TH", "ไทย"),
        ("IN", "भारत"),
        ("US", "EUA|EE.UU.|EE. UU.|EEUU|США|United States (US)|United States, USA"),
        ("SA", "KSA|K.S.A.|Kingdom of Saudi Arabia|السعودية"),
        ("ZA", "RSA|South Africa|Suedafrika"),
        ("KR", "Korea (South)|Korea, South|Korea, Rep.|S. Korea|ROK"),
        ("KP", "Korea (North)|Korea, Dem. People's Rep.|DPRK"),
        ("NL", "Netherlands, The|Netherlands (the)"),
        ("TT", "Trinidad & Tobago|Trinidad and Tobago"),
        ("BA", "Bosnia & Herzegovina|Bosna i Hercegovina"),
        ("CN", "P.R. China|China, PR|People's Republic of China|China (PRC)"),
        ("CD", "Congo, Dem. Rep.|Congo (Democratic Republic of the)"),
        ("CG", "Congo, Rep.|Congo (Brazzaville)"),
        ("VI", "U.S. Virgin Islands|Virgin Islands, U.S.|US Virgin Islands"),
        ("VG", "Virgin Islands (British)|British Virgin Islands"),
        ("LC", "St. Lucia|St Lucia|Saint Lucia"),
        ("AT", "Oesterreich|OESTERREICH"),
        ("GB", "Grossbritannien|Großbritannien|Great Britain & Northern Ireland|England, UK"),
        ("DE", "DE - Germany|Germany (Deutschland)|Deutschland / Germany|Bundesrepublik Deutschland"),
        ("DK", "Daenemark|Dänemark|Danmark"),
    ],
)
def test_a_country_is_known_by_its_spellings(code: str, spellings: str):
    assert {spelling: country.alpha_2(spelling) for spelling in spellings.split("|")} == dict.fromkeys(spellings.split("|"), code)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-",
        "n/a",
        "Atlantis",
        "EU",
        "Europe",
        "XK",
        "ZZ",
        "49",
        "Bavaria",
        "x" * 500,
        "USA / Canada",
        "\u0301",
        "N/A",
        "n.a.",
        "Georgia, USA",
        "Berlin, Germany",
        "Republic",
    ],
)
def test_what_is_no_country_is_null(text: str):
    assert country.alpha_2(text) is None


def test_every_name_and_code_of_the_standard_finds_its_country():
    for known in pycountry.countries:
        for text in (
            known.alpha_2,
            known.alpha_3,
            known.name,
            getattr(known, "official_name", known.name),
            getattr(known, "common_name", known.name),
        ):
            assert country.alpha_2(text) == known.alpha_2, text
            assert country.alpha_2(text.upper()) == known.alpha_2, text


def test_our_own_spellings_contradict_no_name_of_the_standard():
    names = {country._key(known.name): known.alpha_2 for known in pycountry.countries}
    for code, also in country._ALSO.items():
        assert code in CODES
        for spelling in also.split("|"):
            assert spelling == country._key(spelling)
            assert names.get(spelling, code) == code


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_a_code_or_null(text: str):
    assert country.codes(pa.array([text, None], pa.string())).to_pylist()[0] in CODES | {None}


def test_the_names_are_not_built_at_import():
    sizes = "sum(built.cache_info().currsize for built in (country._english, country._any_order, country._translated, country._local))"
    code = f"from identity_pipeline.normalise import country; assert {sizes} == 0"
    subprocess.run([sys.executable, "-c", code], check=True)
