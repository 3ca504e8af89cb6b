"""The certificate authority of a database that no public one vouches for: its text, never a path on this machine."""

import re

from identity_pipeline.core.errors import ConfigurationError


def check_authority(text: str | None) -> str | None:
    """``text`` if it is that of a certificate (PEM), None if there is none.

    Raises:
        ConfigurationError: it is something else.
    """
    if text and not re.match(r"\s*-----BEGIN CERTIFICATE-----\s", text):
        raise ConfigurationError("ca_certificate: expected the text of a certificate, from -----BEGIN CERTIFICATE----- on")
    return text or None
