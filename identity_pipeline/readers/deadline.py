"""A deadline for a whole exchange over HTTP.

The timeouts of sockets start anew with every byte, so a peer that sends one now and then is never
late. Here the connection is shut when the time is over, whether it waits for the status line or
reads the body. (Connecting and the TLS handshake have a total timeout of their own.)
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import requests
from requests.adapters import HTTPAdapter


class _Watch:
    """The connections in use, and whether the time is over."""

    def __init__(self) -> None:
        self.expired = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def add(self, sock: socket.socket) -> None:
        # a descriptor of our own: the number of a closed one may be anybody's by then
        own = socket.socket(fileno=os.dup(sock.fileno()))
        with self._lock:
            self._sockets.append(own)
            if self.expired:
                self._shut(own)

    def expire(self) -> None:
        with self._lock:
            self.expired = True
            for own in self._sockets:
                self._shut(own)

    def close(self) -> None:
        with self._lock:
            for own in self._sockets:
                own.close()
            self._sockets.clear()

    @staticmethod
    def _shut(own: socket.socket) -> None:
        with suppress(OSError):
            own.shutdown(socket.SHUT_RDWR)


_current: ContextVar[_Watch | None] = ContextVar("identity_pipeline_deadline", default=None)


class _Watched:
    """Mixed into urllib3's connections: tells the watch which socket is in use."""

    sock: socket.socket | None

    def getresponse(self, *args: Any, **options: Any) -> Any:
        _watch(self.sock)
        return super().getresponse(*args, **options)  # type: ignore[misc]  # of the connection it is mixed into


def _watch(sock: socket.socket | None) -> None:
    watch = _current.get()
    if watch is not None and sock is not None:
        watch.add(sock)


def bounded(session: requests.Session) -> requests.Session:
    """``session``, whose connections end when the time of :func:`within` is over."""
    for adapter in session.adapters.values():
        if isinstance(adapter, HTTPAdapter):
            manager = adapter.poolmanager
            manager.pool_classes_by_scheme = {
                scheme: type(
                    f"Bounded{pool.__name__}",
                    (pool,),
                    {"ConnectionCls": type(f"Bounded{pool.ConnectionCls.__name__}", (_Watched, pool.ConnectionCls), {})},
                )
                for scheme, pool in manager.pool_classes_by_scheme.items()
            }
    return session


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Whatever this thread does inside over a :func:`bounded` session ends after ``seconds``.

    Raises:
        TimeoutError: it took longer; whatever error that caused inside is replaced.
    """
    watch = _Watch()
    token = _current.set(watch)
    timer = threading.Timer(seconds, watch.expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if watch.expired:
            raise TimeoutError(f"no complete answer within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()
        _current.reset(token)
        watch.close()
    if watch.expired:
        raise TimeoutError(f"no complete answer within {seconds:g} s")
