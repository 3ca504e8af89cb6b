"""Reads contacts and customers from 22 kinds of source into one Postgres identity table.

Layers, each importing only those to its right::

    definitions → orchestration → connectors → readers → core
                        └───────→ store, normalise ────→ core        cli → all
"""

__version__ = "0.1.0"
