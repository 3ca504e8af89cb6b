"""The wire: PyMySQL's connection, which signs in and asks, with a faster way to take rows off it.

PyMySQL makes a Python object of each value by a chain of calls. What is streamed here stays the bytes that came: each
value stands behind its length, so numpy finds the next one of thousands of rows in one step, and Arrow copies it from
there. mysqlclient was not taken: its own cursor is slower than that, it has no wheels, and it cannot connect to
one address and verify the certificate for the name that was asked for.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from pymysql import connections, err
from pymysql.cursors import DictCursor

from identity_pipeline.core.errors import ContractBroken

CHUNK = 1 << 18
_HEAD = 4
"""Bytes before a packet: three of its length, one of its number."""
_WHOLE = 0xFFFFFF
"""A packet of this length goes on in the next one."""
_EOF, _ERROR, _NULL = 0xFE, 0xFF, 0xFB
_WIDTHS = {0xFC: 2, 0xFD: 3, 0xFE: 8}
"""Bytes of a length that does not fit into the first one, which says so."""

_MALFORMED = (struct.error, IndexError, KeyError, UnicodeError, AssertionError, RuntimeError, ValueError, TypeError)
"""What PyMySQL raises over bytes that are not MySQL's, or that ask for a file of this machine."""


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
    _sock: socket.socket

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

    def fileno(self) -> int:
        """The number of its socket."""
        return self._sock.fileno()

    def ask(self, statement: str) -> list[dict[str, Any]]:
        """Execute a statement; its rows.

        Raises:
            ContractBroken: what comes back is not MySQL's protocol, or asks for a file of this machine.
        """
        with understood(), self.cursor(DictCursor) as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def frames(self, statement: str, columns: int, rows: int, size: int) -> Iterator[tuple[list[pa.Array], int]]:
        """Execute a statement of so many columns and stream its rows: each column's values as bytes, and the bytes of all.

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
        body, more = bytearray(), True
        while more:
            begins, ends, end = list[int](), list[int](), 0
            while more and len(ends) < rows and end < size:
                begin = end + _HEAD
                end = self._end(body, end)
                first = body[begin] if end > begin else _NULL
                if first == _ERROR:
                    err.raise_mysql_exception(bytes(body[begin:end]))
                if first == _EOF and end - begin < 9:
                    more = False
                else:
                    begins.append(begin)
                    ends.append(end)
            rest = body[end:]
            if ends:
                with understood():
                    values = _values(body, np.array(begins), np.array(ends), columns)
                yield values, end - _HEAD * len(ends)
            body = rest

    def _end(self, body: bytearray, at: int) -> int:
        """Where the packet ends that begins there, and has come by then. One that goes on in others is made one."""
        end, length = at, _WHOLE
        while length == _WHOLE:
            if len(body) < end + _HEAD:
                self._fill(body, end + _HEAD)
            length = body[end] | body[end + 1] << 8 | body[end + 2] << 16
            if end == at:
                end += _HEAD
            else:
                del body[end : end + _HEAD]
            end += length
            if len(body) < end:
                self._fill(body, end)
        return end

    def _fill(self, body: bytearray, end: int) -> None:
        """Have ``body`` reach that far, or further: all that is missing at once if it is much."""
        while (missing := end - len(body)) > 0:
            if self._rfile is None:
                _lost()
            read = self._rfile.read(missing) if missing > CHUNK else self._rfile.read1(CHUNK)
            if not read:
                _lost()
            body += read


def _lost() -> NoReturn:
    raise err.OperationalError(2013, "the server ended the connection")


def _values(body: bytearray, begins: np.ndarray, ends: np.ndarray, columns: int) -> list[pa.Array]:
    """The values of each column, of the rows that lie between these places of ``body``.

    Raises:
        ValueError: a row has other values than that.
    """
    rows, data = len(begins), np.frombuffer(body, np.uint8)
    spans, absent, at = np.empty((rows, columns, 2), np.int32), [], begins
    for column in range(columns):
        if (at >= ends).any():
            raise ValueError
        first = data[at]
        length, start = first.astype(np.int64), at + 1
        if first.max() >= _NULL:
            length[first == _NULL] = 0
            for mark, width in _WIDTHS.items():
                rare = np.flatnonzero(first == mark)
                places = np.minimum(start[rare, None] + np.arange(width), len(data) - 1)
                length[rare] = (data[places].astype(np.int64) << np.arange(width) * 8).sum(1)
                start[rare] += width
        at = start + length
        if (length < 0).any() or (at > ends).any() or (first == _ERROR).any():
            raise ValueError
        spans[:, column, 0], spans[:, column, 1] = start, at
        absent.append(first == _NULL)
    if (at != ends).any():
        raise ValueError
    # every second element of this array is a value, the others are what lies between two
    number = 2 * rows * columns
    pieces = pa.Array.from_buffers(pa.binary(), number - 1, [None, pa.py_buffer(spans), pa.py_buffer(body)])
    return [pieces.take(pa.array(np.arange(2 * at, number, 2 * columns), mask=absent[at])) for at in range(columns)]
