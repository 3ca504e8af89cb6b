"""Extras of the package: what only one source type needs, and is not there for everybody."""

from identity_pipeline.core.errors import ConfigurationError


def missing(extra: str) -> ConfigurationError:
    """The error for a source type whose driver is not installed."""
    return ConfigurationError(f"this source type needs the extra {extra!r} of the package: pip install 'identity-pipeline[{extra}]'")
