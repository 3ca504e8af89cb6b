"""What the demo brings along: services on this machine that behave like the sources they stand for.

Belongs here: stand-in services and their made-up records, written from the vendors' published
contracts. Does not belong here: anything a real source needs.
"""
