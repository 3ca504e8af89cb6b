"""The names that people give to contact fields: of columns in tables, and of headers in files, in every spelling of them."""

from dataclasses import fields, replace
from typing import Any

from identity_pipeline.core.fieldmap import FieldMap

COLUMNS = FieldMap(
    external_id=("id", "external_id", "contact_id", "customer_id", "record_id", "uuid", "guid"),
    email=("email", "email_address", "e_mail", "mail", "primary_email", "work_email", "secondary_email", "personal_email"),
    phone=(
        "phone",
        "phone_number",
        "telephone",
        "telephone_number",
        "tel",
        "primary_phone",
        "mobile",
        "mobile_phone",
        "mobile_number",
        "mobile_phone_number",
        "cell",
        "cell_phone",
        "work_phone",
        "business_phone",
        "home_phone",
        "other_phone",
    ),
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
    source_created_at=("created_at", "created", "created_on", "creation_date", "date_created", "created_date", "create_date"),
    source_updated_at=(
        "updated_at",
        "updated",
        "modified_at",
        "last_modified",
        "updated_on",
        "modified",
        "date_updated",
        "last_modified_date",
    ),
    deleted_at=("deleted_at", "removed_at", "deleted_on", "date_deleted"),
    deleted_when=(("is_deleted", "true"), ("deleted", "true")),
)
"""The field map of tables. A source's ``mapping:`` overrides it."""


_EXPORTS = FieldMap(
    external_id=("LEID",),  # Mailchimp
    email=(
        "E-mail Address", "E-Mail Address", "e-mail address", "E-MAIL ADDRESS", "E-mail 2 Address", "E-mail 3 Address",  # Outlook
        "E-mail 1 - Value", "E-mail 2 - Value", "E-mail 3 - Value",  # Google
    ),
    phone=(
        "Business Phone 2", "Home Phone 2", "Car Phone",
        "Phone 1 - Value", "Phone 2 - Value", "Phone 3 - Value", "Phone 4 - Value",
    ),
    first_name=("FNAME", "First"),  # Mailchimp
    last_name=("LNAME", "Last"),
    company=("Organization 1 - Name", "Organization Name", "Associated Company"),
    job_title=("Organization 1 - Title", "Organization Title"),
    street=("Business Street", "Work Address", "Home Street", "Home Address", "Address 1 - Street", "Mailing Street", "MAILINGSTREET"),
    city=("Business City", "Work City", "Home City", "Address 1 - City", "Mailing City", "MAILINGCITY"),
    region=("State/Region", "Business State", "Work State", "Home State", "Address 1 - Region", "Mailing State", "MAILINGSTATE"),
    postal_code=(
        "Business Postal Code", "Work ZipCode", "Home Postal Code", "Home ZipCode", "Address 1 - Postal Code", "Mailing Postal Code",
        "MAILINGPOSTALCODE",
    ),
    country=(
        "Country/Region", "Business Country/Region", "Business Country", "Work Country", "Home Country/Region", "Home Country",
        "Address 1 - Country", "Mailing Country", "MAILINGCOUNTRY",
    ),
    source_created_at=("OPTIN_TIME",),
    source_updated_at=("LAST_CHANGED", "SYSTEMMODSTAMP"),
)  # fmt: skip
"""What exports of Outlook, Google, HubSpot, Mailchimp, Salesforce and Thunderbird call them, beside the customary names."""


def spellings(name: str) -> tuple[str, ...]:
    """``email_address``, ``Email Address``, ``email-address``, ``EmailAddress``, ``EMAIL ADDRESS``, ``EMAILADDRESS`` and the like."""
    words = name.split("_")
    titled = [word.capitalize() for word in words]
    upper = [word.upper() if word in {"id", "zip"} else word.capitalize() for word in words]
    first = [titled[0], *words[1:]]
    camel = [words[0], *titled[1:]]
    capitals = [word.upper() for word in words]
    found = [mark.join(style) for style in (words, titled, upper, first, capitals) for mark in "_ -"]
    return tuple(dict.fromkeys([*found, *("".join(style) for style in (titled, upper, camel, words, capitals))]))


def _spelled(names: FieldMap, more: FieldMap) -> FieldMap:
    changed: dict[str, Any] = {
        f.name: tuple(dict.fromkeys([*(s for name in getattr(names, f.name) for s in spellings(name)), *getattr(more, f.name)]))
        for f in fields(names)
        if f.name != "deleted_when"
    }
    flags = tuple((s, value) for name, value in names.deleted_when for s in spellings(name))
    return replace(names, **changed, deleted_when=flags)


HEADERS = _spelled(COLUMNS, _EXPORTS)
"""The field map of contact files. A source's ``mapping:`` overrides it."""
