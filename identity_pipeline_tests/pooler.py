"""A connection pooler in transaction mode: a client keeps a server's session only from BEGIN to the end of the transaction.

Like PgBouncer it answers the start of a session itself, and hands the next transaction to another
server session, whose settings are whatever its last users left. A statement outside a transaction
is one of its own.
"""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty, Queue

import psycopg

_STATUS = {"server_version": "15.0", "client_encoding": "UTF8", "standard_conforming_strings": "on", "integer_datetimes": "on"}
_SSL_REQUEST, _TERMINATE, _READY = 80877103, b"X", b"Z"


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _exactly(wire: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        if not (more := wire.recv(size - len(got))):
            raise ConnectionError
        got += more
    return got


def _read(wire: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(wire, 5)
    return head[:1], head + _exactly(wire, struct.unpack("!i", head[1:])[0] - 4)


@dataclass
class Pooler:
    """``sessions`` are on the server for good; ``transactions`` counts how many each has had."""

    sessions: list[psycopg.Connection]
    transactions: list[int] = field(default_factory=list)
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def close(self) -> None:
        """Take no more clients; the sessions are their owner's again."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.listener.getsockname()[1]

    def serve(self) -> None:
        """Every client at once, until closed. Whoever begins a transaction waits for a session that is free."""
        self.transactions = [0] * len(self.sessions)
        clients: list[threading.Thread] = []
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            servers = [stack.enter_context(socket.socket(fileno=os.dup(session.fileno()))) for session in self.sessions]
            free: Queue[int] = Queue()
            for turn, server in enumerate(servers):
                server.setblocking(True)
                stack.callback(server.setblocking, False)  # as its owner has it
                free.put(turn)
            stack.callback(lambda: [client.join(5) for client in clients])
            while True:
                clients.append(threading.Thread(target=self._serve, args=(self.listener.accept()[0], servers, free), daemon=True))
                clients[-1].start()

    def _serve(self, client: socket.socket, servers: list[socket.socket], free: "Queue[int]") -> None:
        with client, contextlib.suppress(OSError, Empty):
            self._welcome(client)
            while True:
                self._transaction(client, servers, free)

    def _welcome(self, client: socket.socket) -> None:
        code = 0
        while code in {0, _SSL_REQUEST}:
            if code:
                client.sendall(b"N")
            size = struct.unpack("!i", _exactly(client, 4))[0]
            code = struct.unpack("!i", _exactly(client, size - 4)[:4])[0]
        client.sendall(_message(b"R", struct.pack("!i", 0)))
        for name, value in _STATUS.items():
            client.sendall(_message(b"S", f"{name}\0{value}\0".encode()))
        client.sendall(_message(b"K", struct.pack("!ii", 1, 1)) + _message(_READY, b"I"))

    def _transaction(self, client: socket.socket, servers: list[socket.socket], free: "Queue[int]") -> None:
        """Hand on what the client says to one session, until that is idle."""
        status = asked = b""
        turn = None
        try:
            while status != b"I":
                kind, message = _read(client)
                if kind == _TERMINATE:
                    raise ConnectionError
                if turn is None:
                    turn = free.get(timeout=60)
                    self.transactions[turn] += 1
                asked += message
                if kind in {b"Q", b"S"}:
                    status, answer = self._answer(servers[turn], asked)
                    client.sendall(answer)
                    asked = b""
        except OSError:
            if turn is not None:  # in the middle: the pooler cleans up
                self._answer(servers[turn], _message(b"Q", b"ROLLBACK\0"))
            raise
        finally:
            if turn is not None:
                free.put(turn)

    def _answer(self, server: socket.socket, asked: bytes) -> tuple[bytes, bytes]:
        """The status of the transaction after what was ``asked``, and all that the server answers."""
        server.sendall(asked)
        kind = answer = message = b""
        while kind != _READY:
            kind, message = _read(server)
            answer += message
        return message[5:], answer


@contextlib.contextmanager
def pooler(url: str, *left: str) -> Iterator[Pooler]:
    """A pooler before the server at ``url``, with a session for each of ``left``, the statements that its last user left."""
    with contextlib.ExitStack() as stack:
        made = Pooler([stack.enter_context(psycopg.connect(url, autocommit=True)) for _ in left])
        for session, statement in zip(made.sessions, left, strict=True):
            session.execute(statement.encode())
        made.thread.start()
        try:
            yield made
        finally:
            made.close()
