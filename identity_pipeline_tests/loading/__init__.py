"""Tests of loading, against a real PostgreSQL."""
