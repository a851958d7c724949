"""Putting the class into Hypercorn: only into the one it was written for, and only while the context lasts."""

import socket

import pytest
from hypercorn.config import Config
from hypercorn.trio import run as host_run
from hypercorn.trio import tcp_server
from structlog.testing import capture_logs

from trio_swarm.edge import worker
from trio_swarm.edge.listeners import NOTSENT_BYTES, is_loopback, join_address, open_listeners, parse_bind, tune, tuned
from trio_swarm.edge.outlet import find_send
from trio_swarm.edge.worker import check_host, install, make_config, make_connection_class
from trio_swarm.errors import HostError, SettingsError
from trio_swarm.settings import Settings


def test_the_class_stands_in_hypercorns_place_while_the_context_lasts():
    """Installed, nested, and restored in turn, whatever ended the block."""
    outer, inner = make_connection_class(Settings()), make_connection_class(Settings())
    with pytest.raises(ZeroDivisionError), install(outer) as installed:
        assert installed
        with install(inner):
            assert host_run.TCPServer is inner
        assert host_run.TCPServer is outer
        _ = 1 / 0
    assert host_run.TCPServer is tcp_server.TCPServer


@pytest.mark.parametrize("version", ["0.17.3", "0.19.0", "0.180.1", "1.0"])
def test_another_release_is_refused(version):
    """The inside of another release is not known."""
    with pytest.raises(HostError, match=version):
        check_host(version)


@pytest.mark.parametrize("version", ["0.18", "0.18.0", "0.18.7"])
def test_the_pinned_release_is_taken(version):
    """Every patch of the pinned release that has the known shape."""
    check_host(version)


def test_another_shape_is_refused_and_the_log_says_what_that_costs(monkeypatch):
    """A method that is gone: the stock class stays in place, and the reason is in the log."""
    monkeypatch.delattr(worker.host_h11.H11Protocol, "_maybe_recycle")
    with capture_logs() as logs, install(make_connection_class(Settings())) as installed:
        assert not installed
        assert host_run.TCPServer is tcp_server.TCPServer
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_another_signature_is_refused(monkeypatch):
    """Arguments in another order would be given to the wrong names."""

    def changed(self, config, app, context, state, stream):
        raise AssertionError

    monkeypatch.setattr(worker, "_SIGNATURES", ((changed, "self app config context state stream"),))
    with pytest.raises(HostError, match="self config app"):
        check_host()


def test_hypercorns_configuration_has_our_limits_and_leaves_the_original_alone():
    """No HTTP/2, no inflated messages, no access log; a configuration of somebody else's is copied, not changed."""
    config = make_config(Settings())
    assert config.alpn_protocols == ["http/1.1"]
    assert config.websocket_max_message_size == Settings().limits.message_bytes
    assert config.graceful_timeout < Settings().liveness.shutdown_s
    assert config.log.access_logger is None
    foreign = Config()
    worker.tighten(foreign, Settings())
    assert "h2" in foreign.alpn_protocols


@pytest.mark.parametrize(
    ("bind", "host", "port"),
    [("127.0.0.1:8000", "127.0.0.1", 8000), ("[::1]:0", "::1", 0), ("localhost:1", "localhost", 1)],
)
def test_a_bind_is_a_host_and_a_port(bind, host, port):
    """IPv6 addresses stand in brackets."""
    assert parse_bind(bind) == (host, port)
    assert join_address(host, port) == bind
    assert is_loopback(bind)


@pytest.mark.parametrize("bind", ["8000", ":8000", "localhost", "::1:8000", "127.0.0.1:65536", "127.0.0.1:x", ""])
def test_anything_else_is_refused(bind):
    """The sentence names the text."""
    with pytest.raises(SettingsError, match="bind"):
        parse_bind(bind)


@pytest.mark.parametrize("bind", ["0.0.0.0:80", "192.0.2.1:80", "example.org:80", "[::]:80"])
def test_what_others_can_reach_is_not_loopback(bind):
    """A name other than localhost may mean anything."""
    assert not is_loopback(bind)


def test_listening_sockets_carry_what_accepted_ones_inherit():
    """The options are on the listening socket and on what it accepts."""
    (sock,) = open_listeners("127.0.0.1:0", stall_s=7.0)
    with sock, socket.create_connection(sock.getsockname()) as client:
        sock.setblocking(True)
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert tuned(accepted)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_500
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == NOTSENT_BYTES
        assert not tuned(client)
        tune(client, 3.0)
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 4500


def test_a_taken_port_is_the_operators_error_and_leaves_no_socket_open():
    """Named by the bind, and nothing is left behind (an open socket would warn)."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SettingsError, match="cannot listen"):
        open_listeners(f"127.0.0.1:{taken.getsockname()[1]}")


def test_on_a_socket_of_another_kind_tuning_does_nothing():
    """A Unix socket has none of the options."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        tune(ours, 1.0)
        assert tuned(ours)


def test_without_the_socket_below_trios_a_write_goes_by_its_number():
    """Should Trio keep its socket elsewhere, writes are slower and right."""
    ours, theirs = socket.socketpair()
    with ours, theirs:

        class Foreign:
            def fileno(self):
                return ours.fileno()

        assert find_send(Foreign())(b"abc") == 3
        assert theirs.recv(10) == b"abc"
