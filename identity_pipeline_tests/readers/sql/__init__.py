"""Tests of the SQL reader against real servers."""
