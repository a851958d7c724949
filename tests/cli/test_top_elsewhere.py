"""`trio-swarm top` at a Unix socket that is somebody else's."""

import json
import socket
import threading
from contextlib import contextmanager

import pytest

LINES = {
    "text": b"hello\n",
    "null": b"null\n",
    "not UTF-8": b"\xff\xfe\n",
    "list": b"[1]\n",
    "object": b"{}\n",
    "error": b'{"error":{"a":1}}\n',
    "number": b"1" * 5000 + b"\n",
    "deep": b"[" * 100_000 + b"\n",
    "statistics": b'{"statistics":[]}\n',
    "nothing else": b'{"statistics":{}}\n',
    "budget": b'{"version":"1","bind":"x","budget":{},"statistics":{}}\n',
}


@contextmanager
def somebody(path, *lines):
    """Says these lines to whoever comes, the last of them without end where it has no end of line."""

    def serve(listener):
        while True:
            try:
                there, _ = listener.accept()
            except OSError:
                return
            with there:
                try:
                    for line in lines:
                        there.sendall(line)
                    while not lines[-1].endswith(b"\n"):
                        there.sendall(lines[-1])
                    while there.recv(100):
                        there.sendall(lines[-1])
                except OSError:
                    pass

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize("how", ["--once", "--json"])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_socket_that_is_not_ours(invoke, tmp_path, line, how):
    """One sentence with the path in it, and code 2."""
    path = tmp_path / "s"
    with somebody(path, line):
        result = invoke("top", str(path), how, "--once", "--interval", "0.1")
    assert (2, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n")), result.exception
    assert f"Error: top: {path} is no service of ours\n" == result.stderr


def test_a_line_without_end(invoke, tmp_path):
    """It is not kept: what is longer than any service's is none."""
    path = tmp_path / "s"
    with somebody(path, b"x" * 65536):
        result = invoke("top", str(path), "--once", "--interval", "0.1")
    assert (2, f"Error: top: {path} is no service of ours\n") == (result.exit_code, result.stderr)


def test_an_error_of_a_service_is_told(invoke, tmp_path):
    """That is what the field is for."""
    path = tmp_path / "s"
    with somebody(path, json.dumps({"error": "the figures cannot be had"}).encode() + b"\n"):
        result = invoke("top", str(path), "--once")
    assert (1, "Error: the figures cannot be had\n") == (result.exit_code, result.stderr)
