"""An HTTPS file server on loopback, and the certificate authority that vouches for it.

``FileServer(authority)`` serves what stands in ``files``: with entity tag and date, answering 304,
packed, in chunks or without a length, as each :class:`File` says. Faults come from
:class:`~identity_pipeline_tests.servers.faults.FaultProxy` with ``tls=authority.context()`` before it.
"""

import gzip
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self

import trustme


class Authority:
    """A certificate authority of one test; ``bundle`` is what SSL_CERT_FILE names."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.bundle = folder / "authority.pem"
        self._ca.cert_pem.write_to_path(str(self.bundle))

    def context(self, *names: str, **options: Any) -> ssl.SSLContext:
        """A server's side of TLS, for 127.0.0.1 and localhost if no other names are given."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*(names or ("127.0.0.1", "localhost")), **options).configure_cert(context)
        return context


@dataclass
class File:
    """What one path answers."""

    body: bytes = b""
    content_type: str = "text/csv"
    etag: str = ""
    modified: str = ""
    packed: bool = False
    framing: Literal["length", "chunked", "none"] = "length"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def unchanged(self, asked: Any) -> bool:
        """True if the conditions of a request are met."""
        if "If-None-Match" in asked:
            return bool(self.etag) and asked["If-None-Match"] == self.etag
        return bool(self.modified) and asked.get("If-Modified-Since") == self.modified


class FileServer:
    """Serves ``files`` by path. ``requests`` logs the path with its query and the headers of each request."""

    def __init__(self, authority: Authority | None, *names: str, context: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, File] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        if authority:
            context = context or authority.context(*names)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign] - clients that refuse the certificate
        self.port = self._server.server_address[1]
        self.url = f"{'https' if authority else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def put(self, path: str, body: bytes, **options: Any) -> str:
        """Serve ``body`` at ``path``; gives the address."""
        self.files[path] = File(body, **options)
        return self.url + path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True  # TLS sends its tickets apart, and then waits 40 ms for an ACK

        def do_GET(self) -> None:
            server.requests.append((self.path, dict(self.headers.items())))
            file = server.files.get(self.path.partition("?")[0], File(b"not found", "text/plain", status=404))
            unchanged = file.unchanged(self.headers)
            body = b"" if unchanged else gzip.compress(file.body) if file.packed else file.body
            self.send_response(304 if unchanged else file.status)
            headers = {"Content-Type": file.content_type, "ETag": file.etag, "Last-Modified": file.modified} | file.headers
            headers |= {"Content-Encoding": "gzip"} if file.packed else {}
            if unchanged or file.framing == "length":
                headers["Content-Length"] = str(len(body))
            elif file.framing == "chunked":
                headers["Transfer-Encoding"] = "chunked"
                body = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:7], body[7:]) if p) + b"0\r\n\r\n"
            else:
                self.close_connection = True
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
