"""SQL databases: named tables read as batches of text, by window.

Belongs here: the identifier guard, what cursors mean in SQL, the column names that people give to
contact fields, and one package for each engine, which brings its connection guard, session,
catalog and stream. Does not belong here: SQL of the user's own. It is not offered: a table or a
view is named, and nothing a user writes becomes part of a statement.
"""
