"""Made-up contacts for the demo's HubSpot-shaped API: the same ones every time.

Besides ordinary people there are the records that every portal has: archived and merged ones,
phone only, an address with a typing error, a placeholder.
"""

from datetime import UTC, datetime, timedelta

from identity_pipeline.demo.hubspot_api import Contact, contact

_FIRST = (
    "Anna", "Ben", "Clara", "David", "Elif", "Finn", "Greta", "Hugo", "Ines", "Jonas", "Katja", "Luca", "Mara", "Nils", "Olivia",
    "Pavel", "Rosa", "Sami", "Tilda", "Viktor", "Zoë", "Aoife", "Bartosz", "Chloé", "Dörte",
)  # fmt: skip
_LAST = (
    "Albrecht", "Bianchi", "Conti", "Dubois", "Eriksson", "Fischer", "García", "Hofer", "Ivanova", "Jansen", "Kowalski",
    "Lindqvist", "Moreau", "Novak", "O'Brien", "Petersen", "Quinn", "Rossi", "Schäfer", "Taylor", "Unger", "van Dijk", "Weber",
    "Young", "Zimmermann", "Özdemir", "Núñez", "Łukasik", "Brown",
)  # fmt: skip
_COMPANIES = ("Nordwind Handel", "Bluepeak Systems", "Atelier Lumen", "Verde Foods", "Kestrel Analytics", "Polder Logistics")
_TITLES = ("Head of Operations", "Buyer", "CTO", "Office Manager", "Sales Lead", None)
_PLACES = (  # country as people type it, city, region, code, phone with room for two digits
    ("Germany", "Berlin", "Berlin", "10115", "+49 30 12345{:02d}"),
    ("Deutschland", "München", "Bayern", "80331", "0151 234567{:02d}"),
    ("United States", "Newark", "NJ", "07102", "(201) 555-01{:02d}"),
    ("France", "Lyon", "Auvergne-Rhône-Alpes", "69002", "+33 6 12 34 56 {:02d}"),
    ("GB", "Birmingham", "West Midlands", "B2 4QA", "0121 234 56{:02d}"),
    ("Netherlands", "Rotterdam", "Zuid-Holland", "3011 AA", "+31 6 123456{:02d}"),
    ("Italia", "Milano", "MI", "20121", "+39 312 345 67{:02d}"),
    ("Poland", "Kraków", "Małopolskie", "31-042", "512 345 6{:02d}"),
)
_START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


def demo_contacts(n: int = 250) -> list[Contact]:
    """``n`` contacts with ids from 1001 on, changed one after the other from January 2026."""
    return [_contact(i) for i in range(n)]


def _contact(i: int) -> Contact:
    first, last, company = _FIRST[i * 7 % len(_FIRST)], _LAST[i * 11 % len(_LAST)], _COMPANIES[i * 5 % len(_COMPANIES)]
    country, city, region, code, phone = _PLACES[i * 3 % len(_PLACES)]
    domain = company.split()[0].lower() + "-demo.com"
    properties: dict[str, str | None] = {
        "firstname": first,
        "lastname": last,
        "email": f"{_ascii(first)}.{_ascii(last)}{i}@{domain}",
        "phone": phone.format(i % 100),
        "company": company,
        "jobtitle": _TITLES[i % len(_TITLES)],
        "address": f"{i % 90 + 1} Harbour Street",
        "city": city,
        "state": region,
        "zip": code,
        "country": country,
        "lifecyclestage": ("lead", "customer", "subscriber")[i % 3],
        "createdate": _moment(i - 4000),
    }
    archived_at = None
    match i % 50:
        case 7:
            archived_at = _moment(i + 90)
        case 13:
            properties |= {"hs_merged_object_ids": f"{9000 + i};{9500 + i}", "hs_additional_emails": f"{_ascii(last)}{i}@{domain}"}
        case 19:
            properties |= {"email": None, "firstname": None, "lastname": None}
        case 23:
            properties |= {"email": f"{_ascii(first)}.{_ascii(last)}{i}(at){domain}"}
        case 31:
            properties |= {"phone": "000000", "email": "test@test.com"}
        case 37:
            properties |= {"firstname": f"  {first} ", "email": f" {_ascii(first)}.{_ascii(last)}{i}@{domain.upper()} "}
    return contact(1001 + i, _moment(i), archived_at=archived_at, **properties)


def _moment(i: int) -> str:
    moment = _START + timedelta(minutes=37 * i, milliseconds=i * 7 % 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ascii(name: str) -> str:
    plain = str.maketrans("äáãçéèíłñóöøúüÖÁŁÇÉŽë", "aaaceeilnooouuoalceze")
    return "".join(c for c in name.translate(plain).lower() if c.isascii() and c.isalnum())
