"""Tests of what people do with sources."""
