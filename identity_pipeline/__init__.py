"""Reads contacts and customers from 22 kinds of source into one Postgres identity table.

Layers, each importing only those below it; docs/design.md says what is in each::

    cli                 definitions
              orchestration
        loading             declarations
                             connectors
    normalise   embedded   credentials   readers
        store
                      core
"""

__version__ = "0.1.0"
