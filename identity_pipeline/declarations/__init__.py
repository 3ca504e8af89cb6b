"""What a user declares: sources, and the folder of YAML that holds them.

Belongs here: the Source model, reading the folder with its line numbers, and secret references from
``{env: NAME}`` to the value that a run gets. Does not belong here: how a source is read
(``connectors``), what is made of a declaration (``loading``, ``orchestration``).
"""
