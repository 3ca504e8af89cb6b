"""Which source types stand: all 22."""

from identity_pipeline.connectors import SOURCE_TYPES, connectors

STANDING = {
    "airtable_records",
    "azure_blob_csv",
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
    assert set(connectors()) == set(SOURCE_TYPES) == STANDING
    assert len(SOURCE_TYPES) == len(STANDING) == 22
