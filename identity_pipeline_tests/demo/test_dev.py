"""`make dev`."""

import socket

from click.testing import CliRunner

from identity_pipeline.demo.__main__ import demo


def test_a_port_that_is_taken_ends_it_before_anything_is_started():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = CliRunner().invoke(demo, ["dev", "--port", str(port)])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"port {port} of 127.0.0.1 cannot be had (Address already in use)")
    assert "starting" not in done.output
