"""Servers that tests start on loopback. They speak the wire and know nothing of our readers."""
