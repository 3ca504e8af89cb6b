"""From records (source fields, all text) to canonical fields: one table in, one table out.

Belongs here: what a value means whatever source it came from. What a vendor calls its fields is the
connector's field map; what is done with canonical fields is the store's. Nothing here does I/O.

A value that is not certain becomes null, with a verdict where the field has one; the original stays
in ``raw``. Whoever changes what any text becomes raises :data:`canonical.VERSION`, so that records
are normalised again.
"""

from identity_pipeline.normalise.canonical import FIELDS, VERSION, canonicalise, departed, fingerprint

__all__ = ["FIELDS", "VERSION", "canonicalise", "departed", "fingerprint"]
