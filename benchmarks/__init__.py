"""Benchmarks: what a load costs beside what it cannot cost less than, and beside dlt, in one run."""
