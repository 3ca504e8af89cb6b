"""The end of a connect on this machine: the browser is led back to a port of it, once (RFC 8252)."""

import time
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import urlsplit

from identity_pipeline.core.errors import ConfigurationError, TryLater

WAIT = 600.0
"""Seconds for the account's owner to agree."""
_PAGE = (
    "<!doctype html><meta charset=utf-8><title>Identity Pipeline</title><p>The answer has arrived. "
    "The command line says what became of it; this window can be closed."
)


class _Ear(HTTPServer):
    """``heard`` is the path and query with which the browser came."""

    def __init__(self, port: int, path: str) -> None:
        self.path, self.heard = path, ""
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Ear  # pyright: ignore[reportIncompatibleVariableOverride] - it is only ever served by this one
    timeout = 10.0

    def do_GET(self) -> None:
        ours = urlsplit(self.path).path == self.server.path and "state=" in self.path
        self.send_response(200 if ours else 404)
        for name, value in {"Content-Type": "text/html", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(_PAGE.encode() if ours else b"")
        if ours:
            self.server.heard = self.path

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
        """Stay silent: the address holds the code."""


def led_back(redirect_uri: str, address: str, wait: float = WAIT) -> str:
    """Open ``address`` in a browser; the address to which it is led back, with its query.

    Raises:
        ConfigurationError: another program has the port.
        TryLater: nobody came in time.
    """
    parts, until = urlsplit(redirect_uri), time.monotonic() + wait
    try:
        ear = _Ear(parts.port or 80, parts.path)
    except OSError as error:
        raise ConfigurationError(
            f"port {parts.port} of this machine, to which the browser is led back, is not free (errno {error.errno}): end the program "
            "that has it, or connect with --no-browser"
        ) from None
    with ear:
        webbrowser.open(address)
        while not ear.heard and (left := until - time.monotonic()) > 0:
            ear.timeout = left
            ear.handle_request()
    if not ear.heard:
        raise TryLater("nobody agreed in time: begin again, with --no-browser if the browser is on another machine")
    return f"{parts.scheme}://{parts.netloc}{ear.heard}"
