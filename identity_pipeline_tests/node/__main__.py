"""Install them now: it takes a minute, which no single test should wait for."""

from identity_pipeline_tests.node import modules

modules()
