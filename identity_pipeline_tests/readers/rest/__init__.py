"""Tests of the readers of HTTP APIs."""
