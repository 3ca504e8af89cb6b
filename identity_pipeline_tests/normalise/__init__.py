"""Canonical fields: what each text becomes."""
