"""SQL databases: a named table or view, read as batches of text, by window.

Belongs here: :class:`~identity_pipeline.readers.sql.table.SqlTable`, written once for every database;
what it asks of one (``engine``, ``catalog``), the identifier guard, what a column is as a cursor; and
one package for each engine, which brings its connection guard, session, catalog and stream. Does not
belong here: SQL of the user's own. It is not offered: a table or a view is named, and nothing that
a user writes becomes part of a statement.
"""
