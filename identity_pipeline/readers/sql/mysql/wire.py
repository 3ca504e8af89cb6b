"""The wire: PyMySQL's connection, which signs in and asks, with a faster way to take rows off it.

PyMySQL makes a Python object of each value by a chain of calls: 107,000 rows of six columns a second. What is
streamed here stays bytes until Arrow takes it: 480,000. mysqlclient's own cursor makes 320,000; it was not taken
since it cannot connect to one address and verify the certificate for the name that was asked for.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any, NoReturn

from pymysql import connections, err
from pymysql.cursors import DictCursor

from identity_pipeline.core.errors import ContractBroken

CHUNK = 1 << 18
_WHOLE = 0xFFFFFF
"""A packet of this length goes on in the next one."""
_EOF, _ERROR, _NULL = 0xFE, 0xFF, 0xFB

_MALFORMED = (struct.error, IndexError, KeyError, UnicodeError, AssertionError, RuntimeError, ValueError, TypeError)
"""What PyMySQL raises over bytes that are not MySQL's, or that ask for a file of this machine."""

Value = bytes | None


@contextmanager
def understood() -> Iterator[None]:
    """Say of what PyMySQL does not understand that it is not MySQL's.

    Raises:
        ContractBroken: it did not.
    """
    try:
        yield
    except _MALFORMED as error:
        raise ContractBroken(f"the server answered with something that is not MySQL's protocol ({type(error).__name__})") from None


class Connection(connections.Connection):
    """A connection to a server. What is private in its base is used here and nowhere else."""

    server_version: str
    _secure: bool
    _rfile: BufferedReader | None

    @property
    def encrypted(self) -> bool:
        """Whether the wire is."""
        return bool(self._secure)

    @property
    def mariadb(self) -> bool:
        """Whether it is MariaDB that answers."""
        return "mariadb" in self.server_version.lower()

    @property
    def version(self) -> str:
        """Its version; MariaDB hides it behind one of MySQL's."""
        return self.server_version.removeprefix("5.5.5-").partition("-")[0]

    def settle(self, timeout: int) -> None:
        """From now on wait so many seconds for an answer: signing in is over."""
        self._read_timeout = self._write_timeout = timeout

    def ask(self, statement: str) -> list[dict[str, Any]]:
        """Execute a statement; its rows.

        Raises:
            ContractBroken: what comes back is not MySQL's protocol, or asks for a file of this machine.
        """
        with understood(), self.cursor(DictCursor) as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def frames(self, statement: str, columns: int, rows: int, size: int) -> Iterator[tuple[list[Value], int]]:
        """Execute a statement of so many columns and stream its rows: their values, one after the other, and their bytes.

        A frame is at most ``rows`` rows, and ends with the row that brings it to ``size`` bytes.

        Raises:
            pymysql.Error: the server reports an error, or breaks off.
            OSError: the connection is lost.
            ContractBroken: what comes back is not MySQL's protocol, or asks for a file of this machine.
        """
        with understood():
            self.query(statement, unbuffered=True)
        if self._result is not None:
            self._result.unbuffered_active = False  # else it is read to its end when it is thrown away
            self._result = None
        most, taken = rows * columns, 0
        values: list[Value] = []
        for packet, at, end in self._packets():
            if packet[at] == _EOF and end - at < 9:
                break
            if packet[at] == _ERROR:
                err.raise_mysql_exception(packet[at:end])
            taken += end - at
            _values(packet, at, end, values)
            if len(values) >= most or taken >= size:
                yield values, taken
                values, taken = [], 0
        if values:
            yield values, taken

    def _packets(self) -> Iterator[tuple[bytes, int, int]]:
        """The packets that come: each lies between two places of a buffer."""
        buffer, at = b"", 0
        while True:
            held = len(buffer)
            while (length := _length(buffer, at, held)) < _WHOLE and at + 4 + length <= held:
                at += 4 + length
                yield buffer, at - length, at
            if at + 4 <= held and length == _WHOLE:
                body, buffer = self._joined(buffer[at:])
                yield body, 0, len(body)
            else:
                buffer = buffer[at:] + self._more(4 + length - (held - at))
            at = 0

    def _joined(self, buffer: bytes) -> tuple[bytes, bytes]:
        """A packet that goes on in others, as one, and what came behind it."""
        body, length = bytearray(), _WHOLE
        while length == _WHOLE:
            while len(buffer) < 4 + (length := _length(buffer, 0, len(buffer))):
                buffer += self._more(4 + length - len(buffer))
            body += buffer[4 : 4 + length]
            buffer = buffer[4 + length :]
        return bytes(body), buffer

    def _more(self, missing: int) -> bytes:
        """Some more bytes of the server's: all that are ``missing`` if they are many."""
        if self._rfile is None:
            _lost()
        read = self._rfile.read(missing) if missing > CHUNK else self._rfile.read1(CHUNK)
        if not read:
            _lost()
        return read


def _lost() -> NoReturn:
    raise err.OperationalError(2013, "the server ended the connection")


def _length(buffer: bytes, at: int, held: int) -> int:
    """The length of the packet there; 0 as long as that is not known."""
    return buffer[at] | buffer[at + 1] << 8 | buffer[at + 2] << 16 if at + 4 <= held else 0


def _values(packet: bytes, at: int, end: int, values: list[Value]) -> None:
    """Append the values of a row: each behind its length, in one byte or more."""
    while at < end:
        first = packet[at]
        at += 1
        if first < _NULL:
            length = first
        elif first == _NULL:
            values.append(None)
            continue
        else:
            width = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
            length = int.from_bytes(packet[at : at + width], "little")
            at += width
        values.append(packet[at : at + length])
        at += length
