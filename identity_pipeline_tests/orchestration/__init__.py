"""Tests of whole runs: what Dagster, the connectors and the store do together."""
