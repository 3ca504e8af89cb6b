"""`make dev`."""

import socket
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner

from identity_pipeline.demo.__main__ import _announce, demo
from identity_pipeline_tests.servers.files import File, FileServer


def test_a_port_that_is_taken_ends_it_before_anything_is_started():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = CliRunner().invoke(demo, ["dev", "--port", str(port)])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"port {port} of 127.0.0.1 cannot be had (Address already in use)")
    assert "starting" not in done.output


def test_the_address_is_shown_once_the_ui_answers(capsys: pytest.CaptureFixture[str]):
    with FileServer(None) as server, subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        server.files["/server_info"] = File(b"starting", status=503)
        thread = threading.Thread(target=_announce, args=(process, server.url))
        thread.start()
        while not server.requests:
            time.sleep(0.01)
        assert capsys.readouterr().out == ""
        server.files["/server_info"] = File(b"{}")
        thread.join(10)
        assert f"open {server.url}/assets" in capsys.readouterr().out
        process.kill()


def test_the_address_of_a_ui_that_ended_is_not_shown(capsys: pytest.CaptureFixture[str]):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        _announce(process, "http://127.0.0.1:1")
    assert capsys.readouterr().out == ""
