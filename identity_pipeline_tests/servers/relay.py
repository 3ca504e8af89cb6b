"""A TCP relay on loopback that cuts connections: ``Relay(host, port)`` before any server."""

import select
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Self

_RST = struct.pack("ii", 1, 0)


class Relay:
    """Passes bytes on to ``host:port``. ``cut_after`` resets each connection once so many bytes came back over it.

    ``rate`` is how many bytes a second come back over each connection: as over a long or narrow line.
    """

    def __init__(self, host: str, port: int, rate: int | None = None) -> None:
        self.cut_after: int | None = None
        self.rate = rate
        self.bytes_back = 0
        """Bytes that came back over the newest connection."""
        self.open = 0
        """Connections that nobody has ended yet."""
        self._behind = host, port
        self._ears = socket.create_server(("127.0.0.1", 0))
        self.port = self._ears.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening: new connections are refused."""
        with suppress(OSError):  # it was closed before
            self._ears.shutdown(socket.SHUT_RDWR)
        self._ears.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                ready, _, _ = select.select([self._ears], [], [], 0.05)
                if ready:
                    caller, _ = self._ears.accept()
                    threading.Thread(target=self._pass_on, args=(caller,), daemon=True).start()
            except (OSError, ValueError):  # it was closed
                return

    def _pass_on(self, caller: socket.socket) -> None:
        self.open += 1
        try:
            with suppress(OSError):  # one side is gone
                self._exchange(caller)
        finally:
            self.open -= 1

    def _exchange(self, caller: socket.socket) -> None:
        self.bytes_back = back = 0
        began = time.monotonic()
        with caller, socket.create_connection(self._behind) as server:
            other = {caller: server, server: caller}
            while True:
                for side in select.select(list(other), [], [])[0]:
                    data = side.recv(65_536 if self.rate else 1024)
                    if side is server:
                        back += len(data)
                        if self.rate:
                            time.sleep(max(began + back / self.rate - time.monotonic(), 0))
                        self.bytes_back = back
                        if self.cut_after is not None and back > self.cut_after:
                            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
                            return
                    if not data:
                        return
                    other[side].sendall(data)
