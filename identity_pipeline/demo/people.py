"""Made-up people for the demo: always the same ones, some of them in more than one source."""

import csv
import io
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_FIRST = (
    "Anna", "Björn", "Chloé", "Dilara", "Emre", "Frida", "Giulia", "Håkon", "Inês", "Jürgen", "Katarzyna", "Liam", "Małgorzata",
    "Nadia", "Oisín", "Paula", "Quentin", "Renée", "Søren", "Tomáš", "Ulrike", "Viktor", "Wanda", "Xavier", "Yara", "Zoë",
)  # fmt: skip
_LAST = (
    "Albrecht", "Bianchi", "Ćwik", "Dubois", "Eriksson", "Fernández", "García", "Hofmann", "Ivanova", "Jansen", "Kowalski", "Lindqvist",
    "Müller", "Novák", "O'Brien", "Petersen", "Quist", "Rossi", "Schröder", "Tanaka", "Usman", "van Dijk", "Weiß", "Young", "Żak",
)  # fmt: skip
_PLACES = (
    ("Berlin", "Germany", "DE", "030 23{:06d}"), ("München", "Germany", "DE", "089 24{:06d}"),
    ("London", "United Kingdom", "GB", "020 7946 {:04d}"),
    ("Paris", "France", "FR", "01 42 {:02d} {:02d} {:02d}"), ("Madrid", "Spain", "ES", "91 5{:02d} {:02d} {:02d}"),
)  # fmt: skip
_COMPANIES = ("Nordwind Kontor", "Blaumeer Logistik", "Granit & Söhne", "Atelier Lumen", "Casa Verde")
_MAIL = ("nordwind-kontor.de", "blaumeer-logistik.de", "granit-soehne.de", "atelier-lumen.fr", "casa-verde.es")
_BEGIN = datetime(2026, 1, 5, 8, tzinfo=UTC)
_PLAIN = str.maketrans("öäüßéèëåíêñłøšáóćżźęąŻĆ' ", "oaubeeeaienlosaoczzeazc--")


@dataclass(frozen=True)
class Person:
    """One made-up person."""

    number: int
    first: str
    last: str
    email: str
    phone: str
    company: str
    city: str
    country: str
    code: str
    changed: datetime


def people(count: int = 1_500) -> list[Person]:
    """The same ``count`` people each time."""
    dice = random.Random(20260105)  # noqa: S311 - made-up names, not secrets
    found = []
    for number in range(1, count + 1):
        first, last = dice.choice(_FIRST), dice.choice(_LAST)
        employer = dice.randrange(len(_COMPANIES))
        city, country, code, pattern = dice.choice(_PLACES)
        digits = [dice.randrange(10 ** int(width)) for width in [part[0] for part in pattern.split(":0")[1:]]]
        local = f"{first}.{last}".lower().translate(_PLAIN)
        changed = _BEGIN + timedelta(minutes=97 * number, microseconds=number)
        found.append(
            Person(
                number, first, last, f"{local}.{number}@{_MAIL[employer]}", pattern.format(*digits), _COMPANIES[employer],
                city, country, code, changed,
            )
        )  # fmt: skip
    return found


def newsletter_csv(everyone: list[Person]) -> bytes:
    """A newsletter's export as it arrives: spaces, capitals, a quoted line break, two repeats and two records that cannot be read."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";")
    writer.writerow(("id", "email", "first_name", "last_name", "phone", "company", "city", "country", "updated_at", "note"))
    for person in everyone:
        writer.writerow((
            f"N-{person.number:05d}",
            f" {person.email.upper()}" if person.number % 7 == 0 else person.email,
            person.first, person.last, person.phone, person.company, person.city, person.country,
            person.changed.isoformat(timespec="microseconds"),
            'asked for "print"\r\nand online' if person.number % 50 == 0 else "",
        ))  # fmt: skip
    for person in everyone[:2]:
        writer.writerow((f"N-{person.number:05d}", person.email, person.first, person.last, "", "", person.city, person.country, "", ""))
    writer.writerow(("", "nobody@nordwind-kontor.de", "No", "Number", "", "", "", "", "", ""))
    writer.writerow(("N-99999", "too@blaumeer-logistik.de", "Too", "Many", "", "", "", "", "", "", "cells"))
    return out.getvalue().encode()


def customers(everyone: list[Person]) -> list[tuple[object, ...]]:
    """Rows of a shop's table: (id, full_name, email, mobile, city, country_code, created_at, updated_at)."""
    return [
        (
            7_000 + person.number, f"{person.first} {person.last}",
            person.email if person.number % 11 else "info@" + person.email.partition("@")[2],
            person.phone, person.city, person.code, _BEGIN, person.changed,
        )
        for person in everyone
    ]  # fmt: skip
