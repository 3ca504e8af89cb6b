"""Tests of the credential store."""
