"""The words of the project as values: errors, cursor, window, field map, text, settings.

Belongs here: what every other package needs and what needs no I/O beyond the process's own
environment. Does not belong here: anything that opens a connection, and anything of Dagster.
"""
