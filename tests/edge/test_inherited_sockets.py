"""Listening sockets that were open before the process: taken by systemd's protocol, and handed on by it."""

import os
import socket
import subprocess
import sys

import pytest

from trio_swarm.edge.inherited import OURS, Inherited, describe_address, take_inherited
from trio_swarm.errors import SettingsError

CHILD = """
import os, sys
from trio_swarm.edge.inherited import Inherited, describe_address, hand_over, take_inherited
if sys.argv[1] == "first":
    import socket
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    environment = dict(os.environ)
    print(*(describe_address(sock) for sock in reversed(made)), flush=True)
    hand_over([Inherited(sock, name) for sock, name in zip(reversed(made), ("a", "b", "c"))], environment)
    os.execve(sys.executable, [sys.executable, "-c", sys.argv[2], "second", ""], environment)
taken = take_inherited(os.environ)
print(*(describe_address(each.sock) for each in taken))
print(*(each.name for each in taken), *(os.get_inheritable(each.sock.fileno()) for each in taken))
print([name for name in os.environ if name.startswith("LISTEN_")])
"""


def test_sockets_are_handed_to_the_next_image():
    """They arrive in order, by name, wherever they stood before; closed for children, and out of the environment."""
    done = subprocess.run([sys.executable, "-c", CHILD, "first", CHILD], capture_output=True, text=True, check=True)
    given, taken, names, left = done.stdout.splitlines()
    assert given == taken
    assert "a b c False False False" == names
    assert "[]" == left


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "-1", "LISTEN_PID": str(os.getpid())},
    ],
)
def test_what_is_meant_for_others_is_left(variables):
    """Without a number, or with another process's, nothing is taken; the variables go, so that no child takes them."""
    environment = {"HOME": "/", **variables}
    assert [] == take_inherited(environment)
    assert {"HOME": "/"} == environment


@pytest.mark.parametrize(
    ("family", "kind", "listens"),
    [("AF_INET", "SOCK_STREAM", False), ("AF_INET", "SOCK_DGRAM", False), ("AF_UNIX", "SOCK_STREAM", True)],
)
def test_what_cannot_be_served_on(family, kind, listens, monkeypatch, tmp_path):
    """A socket that does not listen, datagrams, and a path in the file system are refused, by the number."""
    with socket.socket(getattr(socket, family), getattr(socket, kind)) as sock:
        if listens:
            sock.bind(str(tmp_path / "s"))
            sock.listen()
        monkeypatch.setattr("trio_swarm.edge.inherited._FIRST", sock.fileno())
        environment = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        with pytest.raises(SettingsError, match=rf"^LISTEN_FDS: descriptor {sock.fileno()} does not listen for TCP$"):
            take_inherited(environment)
        sock.detach()


def test_whose_they_are():
    """Those that an earlier image opened follow the settings; the others are where they are."""
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        assert (True, False) == (Inherited(four, OURS).is_ours, Inherited(six, "http").is_ours)
        assert f"127.0.0.1:{four.getsockname()[1]}" == describe_address(four)
        assert f"[::1]:{six.getsockname()[1]}" == describe_address(six)
