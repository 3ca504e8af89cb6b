"""What every connector promises, tested over all of them through the real store.

``harness.py`` says what a harness is, ``harnesses/`` holds one for each source type, ``loader.py`` loads as a
run does. Belongs here: promises of every connector. What is odd about one source type belongs into
``identity_pipeline_tests/connectors/``.
"""
