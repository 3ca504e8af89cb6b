"""Paramiko's SFTP session, for servers whose names or messages are not UTF-8: its own breaks at the first of them."""

from collections.abc import Iterator
from typing import Any

import paramiko
from paramiko.sftp import CMD_CLOSE, CMD_OPENDIR, CMD_READDIR

_Client: Any = paramiko.SFTPClient
_Attributes: Any = paramiko.SFTPAttributes


class Session(_Client):
    """A session in which names are bytes, and of what a server says only the code has to be readable."""

    def items(self, folder: str) -> Iterator[tuple[bytes, Any]]:
        """What is in ``folder``: each name, and what is known of it (paramiko's SFTPAttributes)."""
        handle = self._request(CMD_OPENDIR, folder)[1].get_binary()
        try:
            while True:
                answer = self._request(CMD_READDIR, handle)[1]
                for _ in range(answer.get_int()):
                    name, _ = answer.get_binary(), answer.get_binary()
                    yield name, _Attributes._from_msg(answer)  # noqa: SLF001 - there is no other way from a name in bytes
        except EOFError:  # so paramiko calls the end of the folder; a lost connection is an SSHException
            self._request(CMD_CLOSE, handle)

    def _convert_status(self, msg: paramiko.Message) -> None:
        plain = paramiko.Message()
        plain.add_int(msg.get_int())
        plain.add_string(msg.get_binary().decode(errors="replace"))
        plain.rewind()
        super()._convert_status(plain)
