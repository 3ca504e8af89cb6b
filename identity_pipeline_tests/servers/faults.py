"""A proxy on loopback that spoils answers as planned: ``FaultProxy(upstream_url)`` before any HTTP server.

Each request takes the next planned fault; None lets it through, and so does an empty plan. What is
spoiled is the true answer of the server behind where there is one to spoil.
"""

import gzip
import http.client
import json
import socket
import ssl
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "server"})


@dataclass(frozen=True)
class Reply:
    """An answer: what the server behind said, or what a fault makes of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Fault = Callable[["Exchange"], None]


@dataclass
class Exchange:
    """What a fault can do: ask the server behind, answer, write raw bytes, cut the line."""

    handler: BaseHTTPRequestHandler
    forward: Callable[[], Reply]
    last: Reply | None = None

    def send(self, status: int, headers: Mapping[str, str], body: bytes, length: int | None = None) -> None:
        """Answer with these bytes; ``length`` is what Content-Length says of them, None is the truth."""
        handler = self.handler
        handler.send_response_only(status)
        for name, value in {"Date": handler.date_time_string(), **headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    def raw(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.handler.wfile.write(data)
        self.handler.wfile.flush()

    def close(self) -> None:
        """End the connection in good order."""
        self.handler.close_connection = True

    def reset(self) -> None:
        """End the connection with RST."""
        self.handler.wfile.flush()
        self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.handler.connection.close()
        self.handler.close_connection = True


def status(code: int, body: object = None, **headers: str) -> Fault:
    """This status; ``body`` as JSON, header names with ``_`` for ``-``."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange: exchange.send(
        code, {"Content-Type": "application/json"} | given, b"" if body is None else json.dumps(body).encode()
    )


def html(code: int = 200) -> Fault:
    """A login or error page in HTML."""
    page = b"<!doctype html><html><body><h1>Please sign in</h1></body></html>"
    return lambda exchange: exchange.send(code, {"Content-Type": "text/html; charset=utf-8"}, page)


def reset(exchange: Exchange) -> None:
    """RST instead of an answer."""
    exchange.reset()


def reset_in_body(exchange: Exchange) -> None:
    """RST in the middle of the body."""
    true = exchange.forward()
    exchange.send(true.status, true.headers, true.body[: len(true.body) // 2], length=len(true.body))
    exchange.reset()


def short_body(exchange: Exchange) -> None:
    """Half of the body that Content-Length promises."""
    true = exchange.forward()
    exchange.send(true.status, true.headers, true.body[: len(true.body) // 2], length=len(true.body))
    exchange.close()


def cut_json(exchange: Exchange) -> None:
    """The body breaks off, and Content-Length agrees with it."""
    true = exchange.forward()
    exchange.send(true.status, true.headers, true.body[: len(true.body) // 2])


def cut_json_unframed(exchange: Exchange) -> None:
    """The body breaks off, and nothing says how long it should be."""
    true = exchange.forward()
    head = "".join(f"{name}: {value}\r\n" for name, value in true.headers.items())
    exchange.raw(f"HTTP/1.1 {true.status} OK\r\n{head}Connection: close\r\n\r\n".encode() + true.body[: len(true.body) // 2])
    exchange.close()


def open_chunks(exchange: Exchange) -> None:
    """A chunked body without its last chunk."""
    true = exchange.forward()
    head = "".join(f"{name}: {value}\r\n" for name, value in true.headers.items())
    exchange.raw(f"HTTP/1.1 {true.status} OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    exchange.raw(f"{len(true.body):x}\r\n".encode() + true.body + b"\r\n")
    exchange.close()


def cut_gzip(exchange: Exchange) -> None:
    """A gzip body that breaks off behind its last full character, with the right Content-Length."""
    true = exchange.forward()
    exchange.send(true.status, {**true.headers, "Content-Encoding": "gzip"}, gzip.compress(true.body)[:-8])


def bomb(megabytes: int) -> Fault:
    """A small gzip body that unpacks to this much."""
    return lambda exchange: exchange.send(
        200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, gzip.compress(b" " * (megabytes * 2**20))
    )


def drip(head: str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", every: float = 0.05) -> Fault:
    """``head``, then one byte now and then, without end; an empty head drips the status line."""

    def slow(exchange: Exchange) -> None:
        exchange.close()
        try:
            exchange.raw(head.encode())
            for byte in (b"HTTP/1.1 200 OK\r\nX: " if not head else b"") + b" " * 100_000:
                exchange.raw(bytes([byte]))
                time.sleep(every)
        except OSError:
            pass

    return slow


def redirect(to: str, code: int = 302) -> Fault:
    """A redirect."""
    return lambda exchange: exchange.send(code, {"Location": to}, b"")


def same_again(exchange: Exchange) -> None:
    """The answer to the request before, once more: its page, and its token for the next one."""
    assert exchange.last is not None, "nothing was answered before"
    exchange.send(exchange.last.status, exchange.last.headers, exchange.last.body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a dripping answer must not hold up the end of a test

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that left in the middle; that is what faults make clients do."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class FaultProxy:
    """Forwards to ``upstream`` and spoils answers as planned. ``requests`` logs (method, path with query)."""

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        self.upstream = urlsplit(upstream)
        self.requests: list[tuple[str, str]] = []
        self._plan: deque[Fault | None] = deque()
        self._last: Reply | None = None
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def plan(self, faults: Iterable[Fault | None]) -> "FaultProxy":
        """Spoil the next answers, in this order."""
        self._plan.extend(faults)
        return self

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.requests.append((handler.command, handler.path))
        sent = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        fault = self._plan.popleft() if self._plan else None
        exchange = Exchange(handler, lambda: self._forward(handler, sent), self._last)
        if fault is not None:
            fault(exchange)
            return
        self._last = self._forward(handler, sent)
        exchange.send(self._last.status, self._last.headers, self._last.body)

    def _forward(self, handler: BaseHTTPRequestHandler, sent: bytes) -> Reply:
        kind = http.client.HTTPSConnection if self.upstream.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.upstream.hostname or "", self.upstream.port, timeout=30)
        try:
            headers = {k: v for k, v in handler.headers.items() if k.lower() not in {"connection", "accept-encoding"}}
            connection.request(handler.command, handler.path, sent or None, headers)
            answer = connection.getresponse()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
            return Reply(answer.status, kept, answer.read())
        finally:
            connection.close()


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True  # TLS sends its tickets apart, and then waits 40 ms for an ACK

        def do_GET(self) -> None:
            proxy.serve(self)

        def do_POST(self) -> None:
            proxy.serve(self)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
