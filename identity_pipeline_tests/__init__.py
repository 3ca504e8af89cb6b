"""Tests of identity_pipeline: one folder for each package, fakes that speak the wire beside them."""
