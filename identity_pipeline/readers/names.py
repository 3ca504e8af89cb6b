"""The names that people give to contact fields: of columns in tables, and of headers in files, in every spelling of them."""

from dataclasses import fields, replace
from typing import Any

from identity_pipeline.core.fieldmap import FieldMap

COLUMNS = FieldMap(
    external_id=("id", "external_id", "contact_id", "customer_id", "uuid", "guid"),
    email=("email", "email_address", "e_mail", "mail", "primary_email", "work_email", "secondary_email"),
    phone=("phone", "phone_number", "telephone", "tel", "primary_phone", "mobile", "mobile_phone", "mobile_number", "work_phone"),
    full_name=("full_name", "fullname", "display_name", "contact_name", "customer_name", "name"),
    first_name=("first_name", "firstname", "given_name", "forename"),
    last_name=("last_name", "lastname", "surname", "family_name"),
    company=("company", "company_name", "organization", "organisation", "organization_name", "account_name"),
    job_title=("job_title", "jobtitle", "position"),  # "title" is as often Dr or Mrs
    street=("street", "street_address", "address", "address_line1", "address1"),
    city=("city", "town"),
    region=("region", "state", "province", "county"),
    postal_code=("postal_code", "postcode", "zip", "zip_code", "zipcode"),
    country=("country", "country_code"),
    source_created_at=("created_at", "created", "created_on", "creation_date", "date_created"),
    source_updated_at=("updated_at", "updated", "modified_at", "last_modified", "updated_on", "modified", "date_updated"),
    deleted_at=("deleted_at", "removed_at"),
    deleted_when=(("is_deleted", "true"), ("deleted", "true")),
)
"""The field map of tables. A source's ``mapping:`` overrides it."""


def spellings(name: str) -> tuple[str, ...]:
    """``email_address``, ``Email Address``, ``email-address``, ``EmailAddress``, ``EMAIL ADDRESS`` and the like."""
    words = name.split("_")
    titled = [word.capitalize() for word in words]
    upper = [word.upper() if word in {"id", "zip"} else word.capitalize() for word in words]
    first = [titled[0], *words[1:]]
    camel = [words[0], *titled[1:]]
    found = [mark.join(style) for style in (words, titled, upper, first, [word.upper() for word in words]) for mark in "_ -"]
    return tuple(dict.fromkeys([*found, *("".join(style) for style in (titled, upper, camel, words))]))


def _spelled(names: FieldMap) -> FieldMap:
    changed: dict[str, Any] = {
        f.name: tuple(s for name in getattr(names, f.name) for s in spellings(name)) for f in fields(names) if f.name != "deleted_when"
    }
    flags = tuple((s, value) for name, value in names.deleted_when for s in spellings(name))
    return replace(names, **changed, deleted_when=flags)


HEADERS = _spelled(COLUMNS)
"""The field map of contact files. A source's ``mapping:`` overrides it."""
