"""The identity schema: records, ledger, quarantine, files, credentials, suppressions."""

from alembic import op

revision = "0001"
down_revision = None

_TABLES = (
    """
    create table identity.records (
        source_name text collate "C" not null,
        external_id text collate "C" not null,
        source_type text not null,
        email text,
        email_verdict text not null,
        phone text,
        phone_verdict text not null,
        emails text[] not null,
        phones text[] not null,
        full_name text,
        first_name text,
        last_name text,
        company text,
        job_title text,
        street text,
        city text,
        region text,
        postal_code text,
        country text,
        source_created_at timestamptz,
        source_updated_at timestamptz,
        raw jsonb not null,
        -- null: whatever the source shows next counts as changed
        record_hash bytea,
        merged_into text collate "C",
        deleted_at timestamptz,
        first_seen_at timestamptz not null default statement_timestamp(),
        changed_at timestamptz not null default statement_timestamp(),
        load_id bigint not null,
        primary key (source_name, external_id)
    )
    """,
    "create index records_email on identity.records (email) where email is not null",
    "create index records_phone on identity.records (phone) where phone is not null",
    """
    create table identity.sources (
        source_name text collate "C" primary key,
        source_type text not null,
        token bigint not null default 0,
        row_count bigint not null default 0,
        cursor_column text,
        cursor_type text,
        cursor_after text,
        mapping text,
        fields text[] not null default '{}',
        updated_at timestamptz not null default statement_timestamp()
    )
    """,
    """
    create table identity.leases (
        source_name text collate "C" primary key references identity.sources,
        load_id bigint not null,
        run_id text not null,
        backend_pid int,
        backend_start timestamptz,
        heartbeat_at timestamptz not null default clock_timestamp()
    )
    """,
    """
    create table identity.loads (
        load_id bigint generated always as identity primary key,
        source_name text collate "C" not null,
        source_type text not null,
        run_id text not null,
        token bigint not null,
        status text not null default 'running' check (status in ('running', 'committed', 'failed')),
        started_at timestamptz not null default clock_timestamp(),
        finished_at timestamptz,
        full_refresh boolean not null,
        cursor_column text,
        cursor_type text,
        cursor_before text,
        cursor_after text,
        mark_before text,
        parts int,
        records_read bigint not null default 0,
        inserted bigint not null default 0,
        updated bigint not null default 0,
        unchanged bigint not null default 0,
        duplicates bigint not null default 0,
        quarantined bigint not null default 0,
        filtered bigint not null default 0,
        deleted bigint not null default 0,
        null_cursor bigint not null default 0,
        bytes_read bigint not null default 0,
        pages bigint not null default 0,
        requests bigint not null default 0,
        throttled_seconds double precision not null default 0,
        seconds_read double precision not null default 0,
        seconds_merge double precision not null default 0,
        valid_identifiers bigint not null default 0,
        warnings text[] not null default '{}',
        error_code text,
        error text
    )
    """,
    "create index loads_source on identity.loads (source_name, load_id desc)",
    """
    create table identity.load_parts (
        load_id bigint not null references identity.loads on delete cascade,
        part int not null,
        records bigint not null,
        inserted bigint not null,
        updated bigint not null,
        unchanged bigint not null,
        duplicates bigint not null,
        quarantined bigint not null,
        deleted bigint not null,
        valid_identifiers bigint not null,
        fields text[] not null,
        seconds double precision not null,
        merged_at timestamptz not null default clock_timestamp(),
        primary key (load_id, part)
    )
    """,
    """
    create table identity.quarantine (
        quarantine_id bigint generated always as identity primary key,
        source_name text collate "C" not null,
        load_id bigint not null,
        external_id text,
        reason text not null,
        detail text not null,
        raw jsonb not null,
        fingerprint bytea not null,
        status text not null default 'open' check (status in ('open', 'replayed', 'discarded')),
        seen bigint not null default 1,
        first_seen_at timestamptz not null default statement_timestamp(),
        last_seen_at timestamptz not null default statement_timestamp(),
        resolved_at timestamptz,
        unique (source_name, fingerprint)
    )
    """,
    """
    create table identity.files (
        source_name text collate "C" not null,
        object text collate "C" not null,
        version text not null,
        load_id bigint not null,
        read_at timestamptz not null default statement_timestamp(),
        primary key (source_name, object)
    )
    """,
    """
    create table identity.credentials (
        name text collate "C" primary key,
        kind text not null,
        key_id text not null,
        nonce bytea not null,
        ciphertext bytea not null,
        version bigint not null default 1,
        status text not null default 'active',
        created_at timestamptz not null default statement_timestamp(),
        updated_at timestamptz not null default statement_timestamp()
    )
    """,
    """
    create table identity.suppressions (
        suppression_id bigint generated always as identity primary key,
        source_name text collate "C",
        kind text not null check (kind in ('email', 'phone', 'external_id')),
        digest bytea not null,
        key_id text not null,
        created_at timestamptz not null default statement_timestamp(),
        unique (kind, digest, source_name)
    )
    """,
)


def upgrade() -> None:
    """Create every table."""
    for statement in _TABLES:
        op.execute(statement)
