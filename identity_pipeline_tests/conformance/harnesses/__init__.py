"""One harness for each source type, named as it."""
