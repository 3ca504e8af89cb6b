"""Credentials: the encrypted store of secrets that sources name as ``{credential: NAME}``.

Belongs here: keys, the vault, and what keeps a credential usable. Does not belong here: how a
request proves who asks (``readers``), which source names which credential (``declarations``).
"""
