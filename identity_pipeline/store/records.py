"""Looking records up, for people: by id, by e-mail address, by phone number."""

import re
from typing import Any

from psycopg.rows import dict_row

from identity_pipeline.core.canonical import CANONICAL
from identity_pipeline.store.database import connect

_COLUMNS = ("external_id", *CANONICAL.names, "raw", "first_seen_at", "changed_at", "load_id")
_MOST = 20


def found(url: str, source_name: str, query: str) -> list[dict[str, Any]]:
    """At most 20 records of a source whose id is ``query``, or which have it as an e-mail address or a phone number."""
    text = query.strip().replace("\0", "")
    phone = re.sub(r"[^\d+]", "", text)
    values = {"source": source_name, "text": text, "email": text.lower(), "phone": phone if len(phone) > 5 else "-", "most": _MOST}
    with connect(url, doing="look records up") as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            f"""
            select {", ".join(_COLUMNS)} from identity.records
            where source_name = %(source)s and (
                external_id = %(text)s or email = %(email)s or phone = %(phone)s
                or emails @> array[%(email)s] or phones @> array[%(phone)s]
            )
            order by external_id limit %(most)s
            """.encode(),
            values,
        ).fetchall()
