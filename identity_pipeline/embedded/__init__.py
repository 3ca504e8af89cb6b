"""The PostgreSQL that we bring: its binaries, one server for each home, and where the identity database is.

Belongs here: making, starting and stopping the embedded server. Does not belong here: what is in
the database (``store``).
"""
