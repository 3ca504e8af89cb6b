"""Countries: names, codes and what people write, as ISO 3166-1 alpha-2.

English names, codes and the spellings below come first; only a text they do not know is looked up
among the names that other languages have for countries. A name that means two countries there is
left out.
"""

import gettext
import re
import unicodedata
from functools import cache

import pyarrow as pa
import pycountry

_ALSO = {
    "AE": "uae|u a e|emirates",
    "BA": "bosnia|bosnia herzegovina",
    "BE": "belgie|belgique|belgien",
    "BN": "brunei",
    "BO": "bolivia",
    "BR": "brasil",
    "CD": "dr congo|drc|congo kinshasa|democratic republic of congo|congo dr",
    "CG": "republic of congo|congo brazzaville|congo republic",
    "CH": "schweiz|suisse|svizzera|svizra",
    "CI": "ivory coast|cote divoire",
    "CN": "mainland china|peoples republic of china|pr china|prc|中国|中國",
    "CV": "cape verde",
    "CZ": "czech republic|cesko|ceska republika|tschechien",
    "DE": "deutschland|federal republic of germany|brd",
    "DK": "danmark",
    "ES": "espana",
    "FI": "suomi",
    "FK": "falkland islands",
    "FM": "micronesia",
    "GB": "uk|u k|united kingdom|great britain|britain|england|scotland|wales|northern ireland|gb eng|gb sct|gb wls|gb nir",
    "GR": "el|ellada|hellas",
    "HK": "hong kong sar|hongkong",
    "IE": "eire|republic of ireland",
    "IR": "iran",
    "IT": "italia",
    "JP": "nippon|nihon|日本",
    "KP": "north korea|dprk",
    "KR": "south korea|korea|republic of korea|대한민국|한국",
    "LA": "laos",
    "MD": "moldova",
    "MK": "macedonia",
    "MM": "burma",
    "MO": "macau|macao sar",
    "MX": "mejico",
    "NL": "holland|nederland",
    "NO": "norge|noreg",
    "PL": "polska",
    "PS": "palestine",
    "RU": "russia|rossiya",
    "SE": "sverige",
    "SX": "sint maarten",
    "SY": "syria",
    "SZ": "swaziland",
    "TL": "east timor",
    "TR": "turkey|turkiye",
    "TW": "taiwan|台灣|台湾",
    "TZ": "tanzania",
    "US": "usa|u s a|u s|us of a|united states of america|america|estados unidos|etats unis|vereinigte staaten",
    "VA": "vatican|vatican city",
    "VE": "venezuela",
    "VG": "british virgin islands|bvi",
    "VI": "us virgin islands|usvi",
    "VN": "vietnam",
}
_LANGUAGES = (
    "de",
    "fr",
    "es",
    "it",
    "pt",
    "nl",
    "pl",
    "sv",
    "da",
    "nb",
    "fi",
    "cs",
    "hu",
    "ro",
    "tr",
    "el",
    "ru",
    "uk",
    "ja",
    "ko",
    "zh_CN",
    "zh_TW",
    "ar",
    "he",
)


def _key(text: str) -> str:
    """What is left of a spelling: letters and digits without accents, single blanks, no article before them."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    plain = plain.replace("'", "").replace("\u2019", "")
    return unicodedata.normalize("NFC", re.sub(r"[^\w]+|_", " ", plain)).strip().removeprefix("the ")


@cache
def _english() -> dict[str, str]:
    names: dict[str, str] = {}
    for country in pycountry.countries:
        for field in ("name", "common_name", "official_name", "alpha_3", "alpha_2"):
            if (text := getattr(country, field, None)) is not None:
                names[_key(text)] = country.alpha_2
    names |= {_key(also): code for code, known in _ALSO.items() for also in known.split("|")}
    return names


@cache
def _translated() -> dict[str, str]:
    codes: dict[str, set[str]] = {}
    for language in _LANGUAGES:
        translate = gettext.translation("iso3166-1", pycountry.LOCALES_DIR, [language], fallback=True).gettext
        for country in pycountry.countries:
            for field in ("name", "common_name", "official_name"):
                if (text := getattr(country, field, None)) is not None:
                    codes.setdefault(_key(translate(text)), set()).add(country.alpha_2)
    return {name: next(iter(found)) for name, found in codes.items() if len(found) == 1 and name}


def alpha_2(text: str) -> str | None:
    """The ISO 3166-1 alpha-2 code of a country, None if the text is not certainly one."""
    if len(text) > 200:
        return None
    key = _key(text)
    if not key:
        return None
    return _english().get(key) or _translated().get(key)


def codes(column: pa.Array) -> pa.Array:
    """A column of countries as alpha-2 codes; null where one is unknown."""
    encoded = column.dictionary_encode()
    return pa.array([alpha_2(text) for text in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)
