"""Countries: names, codes and what people write, as ISO 3166-1 alpha-2.

English names, codes and the spellings below come first; then the same words in another order
(``Korea (South)``); only a text they do not know is looked up among the names that countries have
in their own languages and in those of the others (CLDR and the ISO 3166 translations). A name that
means two countries there is left out.
"""

import gettext
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache

import pyarrow as pa
import pycountry
from babel import localedata
from babel.languages import get_official_languages

_ALSO = {
    "AE": "uae|emirates|eau|vae",
    "AL": "shqiperia",
    "BA": "bosnia|bosnia herzegovina|bih",
    "BE": "belgie|belgique|belgien",
    "BN": "brunei",
    "BO": "bolivia",
    "BQ": "bonaire|saba|sint eustatius|caribbean netherlands",
    "BR": "brasil",
    "BY": "weissrussland|belorussia|byelorussia|bielorussie|bielorrusia|bielorrussia|bielorussia|wit rusland",
    "CD": "dr congo|drc|congo kinshasa|democratic republic of congo|congo dr|zaire",
    "CF": "central african republic",
    "CG": "republic of congo|congo brazzaville|congo republic",
    "CH": "schweiz|suisse|svizzera|svizra|swiss confederation",
    "CI": "ivory coast|cote divoire|cote d ivoire|elfenbeinkuste|elfenbeinkueste|costa de marfil|costa do marfim|costa davorio|ivoorkust",
    "CN": "mainland china|peoples republic of china|pr china|prc|china pr|china mainland|中国|中國",
    "CV": "cape verde",
    "CZ": "czech republic|cesko|ceska republika|tschechien|tschechische republik",
    "DE": "deutschland|federal republic of germany|brd|frg",
    "DK": "danmark",
    "EG": "arab republic of egypt",
    "ES": "espana",
    "FI": "suomi",
    "FK": "falkland islands",
    "FM": "micronesia",
    "GB": (
        "uk|u k|united kingdom|great britain|britain|england|scotland|wales|northern ireland|n ireland|england and wales|gb eng|"
        "gb sct|gb wls|gb nir|uk of great britain and northern ireland|great britain and northern ireland|grossbritannien|"
        "grande bretagne|gran bretagna|gran bretana|gra bretanha|groot brittannie|storbritannien|storbritannia|iso britannia|"
        "wielka brytania|velka britanie|nagy britannia|великобритания|reino unido"
    ),
    "GR": "el|ellada|hellas|hellenic republic",
    "HK": "hong kong sar|hongkong|hong kong sar china|hong kong china|hongkong china",
    "IE": "eire|republic of ireland",
    "IR": "iran",
    "IT": "italia",
    "JP": "nippon|nihon|日本",
    "KG": "kyrgyz republic",
    "KP": "north korea|n korea|dprk|democratic peoples republic korea",
    "KR": "south korea|s korea|korea|republic of korea|rok|대한민국|한국",
    "LA": "laos|lao pdr",
    "MD": "moldova",
    "MK": "macedonia|fyrom|fyr macedonia|former yugoslav republic of macedonia",
    "MM": "burma",
    "MO": "macau|macao sar|macao sar china|macau sar china|macao china|macau china",
    "MX": "mejico|estados unidos mexicanos",
    "NL": "holland|nederland",
    "NO": "norge|noreg",
    "NZ": "aotearoa",
    "PH": "phillipines|philipines",
    "PL": "polska",
    "PS": "palestine|west bank and gaza",
    "RU": "russia|rossiya|rossija|рф|р ф|россииская федерация",  # noqa: RUF001 - Cyrillic it is
    "SA": "ksa|saudi|السعودية|العربية السعودية",
    "SE": "sverige",
    "SK": "slovak republic",
    "ST": "sao tome",
    "SX": "sint maarten",
    "SY": "syria",
    "SZ": "swaziland",
    "TL": "east timor",
    "TR": "turkey|turkiye",
    "TT": "trinidad",
    "TW": "taiwan|taiwan roc|taiwan china|republic of china|台灣|台湾",
    "TZ": "tanzania",
    "US": (
        "usa|u s|us of a|united states of america|america|estados unidos|etats unis|vereinigte staaten|eua|ee uu|eeuu|eeuua|"
        "estados unidos da america|estados unidos de america|etats unis damerique|vereinigte staaten von amerika|stati uniti damerica|сша"
    ),
    "VA": "vatican|vatican city",
    "VE": "venezuela|venezuela rb",
    "VG": "british virgin islands|bvi|uk virgin islands",
    "VI": "us virgin islands|usvi|american virgin islands",
    "VN": "vietnam",
    "YE": "republic of yemen",
    "ZA": "rsa|s africa",
}
_SMALL_WORDS = frozenset({"the", "of", "and"})
_SHORT_WORDS = {
    "rep": "republic", "dem": "democratic", "fed": "federated", "sts": "states", "st": "saint", "ste": "saint", "isl": "island",
    "is": "island", "isls": "island", "islands": "island", "terr": "territory", "utd": "united",
}  # fmt: skip
_LANGUAGES = (
    "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "da", "nb", "fi", "cs", "hu", "ro", "tr", "el", "ru", "uk", "ja", "ko", "zh_CN",
    "zh_TW", "ar", "he",
)  # fmt: skip
"""Those whose names of countries are taken in their long forms too."""
_APOSTROPHES = re.compile("['`\u00b4\u02bb\u02bc\u2018\u2019]")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae"})


def _key(text: str) -> str:
    """What is left of a spelling: letters and digits without accents, single blanks, initials as one word, no article before them."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    plain = re.sub(r"[^\w]+|_", " ", unicodedata.normalize("NFC", _APOSTROPHES.sub("", plain))).strip()
    if len(plain) > 3:  # "n/a" and "N.A." are not Namibia
        plain = re.sub(r"\b(\w) (?=\w\b)", r"\1", plain)
    return plain.removeprefix("the ")


def _bag(key: str) -> frozenset[str]:
    """The words of a key in no order, short forms written out, without the small ones."""
    return frozenset(_SHORT_WORDS.get(word, word) for word in key.split()) - _SMALL_WORDS


def _unambiguous(names: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Name and code of each pair whose name has no other code."""
    codes: dict[str, set[str]] = {}
    for name, code in names:
        codes.setdefault(name, set()).add(code)
    return {name: next(iter(found)) for name, found in codes.items() if len(found) == 1 and name}


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
def _any_order() -> dict[frozenset[str], str]:
    codes: dict[frozenset[str], set[str]] = {}
    for key, code in _english().items():
        if len(key) > 3:  # no codes
            codes.setdefault(_bag(key), set()).add(code)
    return {bag: next(iter(found)) for bag, found in codes.items() if len(found) == 1 and bag}


@cache
def _translated() -> dict[str, str]:
    return _unambiguous((key, code) for name, code in _iso_names() for key in _keys(name))


@cache
def _local() -> dict[str, str]:
    return _unambiguous((key, code) for name, code in _cldr_names() for key in _keys(name) if len(key) > (3 if key.isascii() else 1))


def _keys(name: str) -> set[str]:
    """Keys of a name, with umlauts also as they are written where the keyboard has none."""
    spelled = unicodedata.normalize("NFC", name).casefold()
    plain = spelled.translate(_UMLAUTS)
    return {_key(spelled)} if plain == spelled else {_key(spelled), _key(plain)}


def _iso_names() -> Iterator[tuple[str, str]]:
    """Names and their codes as the ISO 3166 translations have them."""
    for language in _LANGUAGES:
        translate = gettext.translation("iso3166-1", pycountry.LOCALES_DIR, [language], fallback=True).gettext
        for country in pycountry.countries:
            for field in ("name", "common_name", "official_name"):
                if (text := getattr(country, field, None)) is not None:
                    yield translate(text), country.alpha_2


def _cldr_names() -> Iterator[tuple[str, str]]:
    """Names and their codes in every language that is official somewhere, as CLDR has them."""
    codes = sorted(country.alpha_2 for country in pycountry.countries)
    spoken = {language for code in codes for language in get_official_languages(code, de_facto=True)}
    for locale in sorted(localedata.locale_identifiers()):
        language, _, script = locale.partition("_")
        if locale in spoken or (language in spoken and len(script) == 4):
            names = localedata.load(locale, merge_inherited=False).get("territories", {})
            yield from ((names[code], code) for code in codes if code in names)


def alpha_2(text: str) -> str | None:
    """The ISO 3166-1 alpha-2 code of a country, None if the text is not certainly one.

    Several names in one text (``Germany (Deutschland)``, ``DE - Germany``) count if all are of one country.
    """
    if len(text) > 200:
        return None
    if (code := _one(text)) is not None:
        return code
    parts = [part for part in re.split(r"[()\[\]/|,;:]|\s[-\u2013\u2014]\s", text) if part.strip()]
    found = {_one(part) for part in parts} if len(parts) > 1 else set()
    return found.pop() if len(found) == 1 else None


def _one(text: str) -> str | None:
    key = _key(text)
    if not key:
        return None
    return _english().get(key) or _any_order().get(_bag(key)) or _translated().get(key) or _local().get(key)


def codes(column: pa.Array) -> pa.Array:
    """A column of countries as alpha-2 codes; null where one is unknown."""
    encoded = column.dictionary_encode()
    return pa.array([alpha_2(text) for text in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)
