"""One bench for each source type, named as it."""
