"""Sessions whose every connection passes the guard and ends at a deadline.

The timeouts of sockets start again with every byte, so a peer that sends one now and then is never
late. Here the connection is shut when the time is over, whether it waits for the status line or
reads the body. (Connecting and the TLS handshake have a total timeout of their own.)
"""

import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection
from urllib3.util.ssl_ import create_urllib3_context

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.readers.http import guard


def session() -> requests.Session:
    """A session whose every connection passes the guard and ends with :func:`within`.

    It reads no proxy and no ``.netrc`` from the environment, follows no redirect, and verifies
    certificates against the bundles that REQUESTS_CA_BUNDLE and SSL_CERT_FILE name, else the public one.

    Raises:
        ConfigurationError: such a bundle does not exist or is none.
    """
    logging.getLogger("urllib3").setLevel(logging.INFO)  # at DEBUG it logs every address with its query, where tokens and signatures are
    made = _Session()
    made.trust_env = False  # a proxy would be the peer that is checked, .netrc would add credentials
    context = create_urllib3_context(ssl_minimum_version=ssl.TLSVersion.TLSv1_2)
    named = {bundle: name for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE") if (bundle := os.environ.get(name))}
    for bundle, name in named.items():  # both often name one file, of which reading takes 30 ms
        try:
            folder = Path(bundle).is_dir()
            context.load_verify_locations(None if folder else bundle, bundle if folder else None)
        except OSError as error:
            raise ConfigurationError(f"{name} names no certificate bundle ({type(error).__name__}): correct or unset it") from None
        made.verify = bundle  # requests would add the public one otherwise
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter(context))
    return made


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Whatever this thread does inside over a :func:`session` ends after ``seconds``.

    Raises:
        TimeoutError: it took longer; whatever error that caused inside is replaced.
    """
    watch, scope = _Watch(), _scope.get()
    token = _current.set(watch)
    timer = threading.Timer(seconds, watch.expire)
    timer.daemon = True
    timer.start()
    if scope is not None:
        scope.add(watch)
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
        if scope is not None:
            scope.discard(watch)
    if watch.expired:
        raise TimeoutError(f"no complete answer within {seconds:g} s")


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


class Scope:
    """What several threads do over sessions, and somebody else may end.

    Whatever a thread does inside :meth:`entered` ends at once with a :class:`TimeoutError` after :meth:`end`.
    """

    def __init__(self) -> None:
        self._ended = False
        self._watches: set[_Watch] = set()
        self._lock = threading.Lock()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread's work belongs to the scope while the body runs."""
        token = _scope.set(self)
        try:
            yield
        finally:
            _scope.reset(token)

    def end(self) -> None:
        """Shut every connection that is in use inside, and every later one."""
        with self._lock:
            self._ended = True
            for watch in self._watches:
                watch.expire()

    def add(self, watch: _Watch) -> None:
        """A connection may be used under this watch from now on."""
        with self._lock:
            self._watches.add(watch)
            if self._ended:
                watch.expire()

    def discard(self, watch: _Watch) -> None:
        """It is not any more."""
        with self._lock:
            self._watches.discard(watch)


_current: ContextVar[_Watch | None] = ContextVar("identity_pipeline_deadline", default=None)
_scope: ContextVar[Scope | None] = ContextVar("identity_pipeline_scope", default=None)


def _dial(connection: HTTPConnection) -> socket.socket:
    """A socket to an allowed address of the connection's host. No byte has been sent on it."""
    host = connection._dns_host.strip("[]")  # noqa: SLF001 - urllib3's name for the host as it was asked for
    try:
        addresses = guard.addresses(host, connection.port)
    except (OSError, UnicodeError) as error:
        failure = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
        raise NameResolutionError(host, connection, failure) from error
    failed: OSError | None = None
    for address in addresses:
        try:
            sock = create_connection(
                (address, connection.port),
                connection.timeout,
                source_address=connection.source_address,
                socket_options=connection.socket_options,
            )
        except OSError as error:
            failed = error
            continue
        try:
            guard.check_address(sock.getpeername()[0], host)
        except ConfigurationError:
            sock.close()
            raise
        return sock
    if isinstance(failed, TimeoutError):
        raise ConnectTimeoutError(connection, f"Connection to {host} timed out") from failed
    raise NewConnectionError(connection, f"Failed to connect to {host}: {failed}") from failed


def _watch(sock: socket.socket | None) -> None:
    watch = _current.get()
    if watch is not None and sock is not None:
        watch.add(sock)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _dial(self)

    def getresponse(self) -> Any:
        _watch(self.sock)
        return super().getresponse()


class _TLSConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _dial(self)

    def getresponse(self) -> Any:
        _watch(self.sock)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType] - as urllib3 itself does


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection  # pyright: ignore[reportAssignmentType] - as urllib3 itself does


class _Adapter(HTTPAdapter):
    """Sends to checked addresses over checked connections. ``context`` is TLS as we want it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        guard.check_url(request.url or "")
        return super().send(request, *args, **options)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - requests calls it by name
        """None: redirects are followed by :mod:`.exchange`, never by requests."""
        return None
