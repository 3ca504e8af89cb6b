"""A dry run: what a load would do, counted against what is stored. Nothing is written, kept or marked."""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from identity_pipeline.core.cursor import Mark
from identity_pipeline.core.cursor_filter import CursorCounts, apply_cursor_filter
from identity_pipeline.core.fieldmap import GONE
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.text import SANITISED, cast_all_utf8
from identity_pipeline.core.window import ReadContext
from identity_pipeline.loading.fields import Fields, check_cursor
from identity_pipeline.loading.read import check_not_before, check_whole, closable, described, window_of
from identity_pipeline.loading.spec import Reader, RunOptions, departed, fingerprint, rules
from identity_pipeline.loading.start import start_of
from identity_pipeline.store import ledger, rejection
from identity_pipeline.store.batch import newest
from identity_pipeline.store.database import connect
from identity_pipeline.store.pace import SharedPace
from identity_pipeline.store.record_hash import record_hashes

_SAMPLE = 100
"""So many changed records are looked at for which of their fields changed."""


@dataclass
class DryRun:
    """What a load would do. ``reasons`` counts why records would go into quarantine, ``changed_fields`` what changed in a sample.

    Two versions of a record count as duplicates only where they come in one batch. What a full refresh would
    delete is not counted.
    """

    source_name: str
    window: str
    records_read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0
    quarantined: int = 0
    filtered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    changed_fields: Counter[str] = field(default_factory=Counter)
    sampled: int = 0


def dry_run(spec: LoadSpec, reader: Reader, url: str, *, options: RunOptions, published: Mark | None, log: Callable[[str], None]) -> DryRun:
    """Read what a load would read, and compare it with what is stored.

    Raises:
        PipelineError: the source cannot be read, or the database does not answer.
    """
    stored = ledger.state(url, spec.source_name)
    check_not_before(spec, stored, options)
    start = start_of(spec, stored, published, options, log)
    pace = SharedPace(url)
    window = window_of(spec, stored, start, options, ReadContext(log=log, pace=pace))
    found, counts = DryRun(spec.source_name, described(window)), CursorCounts()
    fields, names = Fields(spec, stored.fields, options.accepts_loss), set[str]()
    comparing = connect(url, doing="compare with the identity table", autocommit=True)  # a source may be slow: no transaction waits for it
    with pace, comparing as connection, closing(closable(reader.read(window))) as batches:
        connection.execute("set default_transaction_read_only to on")
        for batch in batches:
            records = cast_all_utf8(batch)
            if options.limit is not None:
                records = records.slice(0, options.limit - found.records_read)
            found.records_read += records.num_rows
            fields.batch(records.column_names, window)
            names |= {*records.column_names}
            kept = apply_cursor_filter(records, window, counts, departed(spec))
            if kept.num_rows:
                _compare(connection, spec, kept, found, older_stays=not (options.full_refresh or spec.snapshot))
            if options.limit is not None and found.records_read >= options.limit:
                break
        check_whole(spec, window, found.records_read)
    check_cursor(spec, counts)
    fields.end(names, window)
    found.filtered = counts.filtered
    return found


def _compare(connection: psycopg.Connection, spec: LoadSpec, batch: pa.Table, found: DryRun, *, older_stays: bool) -> None:
    id_field = rejection.id_field(batch, spec.field_map, spec.source_name)
    reasons = rejection.reasons(batch, id_field)
    found.reasons.update(reason.partition(":")[0] for reason in reasons.drop_null().to_pylist())
    found.quarantined += len(reasons) - reasons.null_count
    good = batch.filter(pc.is_null(reasons))
    gone = good.column(GONE).combine_chunks() if GONE in good.column_names else pa.nulls(good.num_rows, pa.string())
    plain = good.drop_columns([name for name in good.column_names if name.startswith(rejection.RESERVED)])
    recency = rules(spec).recency
    keys = recency.keys(plain)
    places = newest(plain.column(id_field), keys, newest_first=recency.newest_first)
    if places is not None:
        found.duplicates += plain.num_rows - len(places)
        plain, gone = plain.take(places), gone.take(places)
        keys = None if keys is None else keys.take(places)
    if not plain.num_rows:
        return
    rows = _stored(connection, spec, plain.column(id_field).to_pylist(), record_hashes(plain, fingerprint(spec)).to_pylist())
    texts, at = pa.array([text for _, _, text, _ in rows], pa.string()), pa.array([position for position, *_ in rows], pa.int64())
    older, _ = recency.compared(connection, texts, keys.take(at) if older_stays and keys is not None else None)
    inserted = updated = 0
    for number, (position, absent, _, raw) in enumerate(rows):
        if gone[position].is_valid or (absent is False and older[number]):
            continue
        inserted += absent
        updated += not absent
        if raw is not None and found.sampled < _SAMPLE:
            found.sampled += 1
            now = plain.slice(position, 1).to_pylist()[0]
            found.changed_fields.update(name for name in {*now, *raw} - {SANITISED} if now.get(name) != raw.get(name))
    found.inserted += inserted
    found.updated += updated
    found.unchanged += plain.num_rows - inserted - updated


def _stored(connection: psycopg.Connection, spec: LoadSpec, ids: list[str], hashes: list[bytes]) -> list[tuple]:
    """Of those that are not stored as they are: position, whether they are new, the stored cursor text and raw record."""
    return connection.execute(
        """
        select (i.n - 1)::int, r.external_id is null, r.raw ->> %(cursor)s, r.raw
        from unnest(%(ids)s::text[], %(hashes)s::bytea[]) with ordinality as i(external_id, hash, n)
        left join lateral (
            select external_id, record_hash, raw from identity.records
            where source_name = %(source)s and external_id = i.external_id offset 0
        ) r on true
        where r.record_hash is distinct from i.hash order by i.n
        """,
        {"cursor": rules(spec).recency.column or "", "ids": ids, "hashes": hashes, "source": spec.source_name},
    ).fetchall()
