"""Which source types stand: each issue that brings connectors adds its own, until all 22 do."""

from identity_pipeline.connectors import SOURCE_TYPES, connectors

STANDING = {
    "airtable_records",
    "bigquery_identity",
    "csv_url",
    "google_contacts",
    "google_sheets",
    "gcs_csv",
    "hubspot_contacts",
    "intercom_contacts",
    "klaviyo_profiles",
    "mailchimp_members",
    "microsoft_contacts",
    "mysql_identity",
    "pipedrive_persons",
    "postgres_identity",
    "s3_csv",
    "sftp_csv",
    "salesforce_contacts",
    "shopify_customers",
    "snowflake_identity",
    "stripe_customers",
    "zendesk_users",
}


def test_all_phase1_connectors_registered() -> None:
    """A module that cannot be imported, or a file that was forgotten, is missed here."""
    assert set(connectors()) == STANDING
    assert set(SOURCE_TYPES) >= STANDING
    assert len(SOURCE_TYPES) == len(set(SOURCE_TYPES)) == 22
