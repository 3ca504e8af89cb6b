"""The column names that people give to contact fields."""

from identity_pipeline.core.fieldmap import FieldMap

CUSTOMARY = FieldMap(
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
