"""One load, written once: read, part, commit, preview, replay, with typed tasks between them.

Belongs here: what a load does, whoever asks for it: Dagster's ops, the command line, the tests. Does
not belong here: Dagster, which source there is (``declarations``), how it is read (``connectors``,
``readers``), what is written how (``store``).
"""
