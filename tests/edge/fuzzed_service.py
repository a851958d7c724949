"""A service to send anything to: afterwards it must hold what it held, have logged no error, and have lost nobody's
events.

The fuzzers are Hypothesis tests with blocking sockets, in a thread beside the witnesses.
"""

import itertools
import socket
import struct
import threading
from contextlib import asynccontextmanager, contextmanager

import trio
from hypothesis import HealthCheck, settings
from watched_process import Witnesses, difference, watched_service

PATIENCE_S = 60.0  # an answer that takes longer is none


@asynccontextmanager
async def fuzzed_service(*, foreign):
    """Gives its address, and watches."""
    async with watched_service(foreign=foreign) as service, trio.open_nursery() as nursery:
        witnesses = Witnesses(service)
        await nursery.start(witnesses.run)
        base = await service.settled(witnesses)
        yield service.host, service.port
        end = await service.settled(witnesses, base)
        assert "" == difference(base, end)
        witnesses.finish()
    assert [] == witnesses.faults


@contextmanager
def rude_service(greeting=b""):
    """Something to find out: a server that reads what one client sends, says this and no more, reads on, and resets."""

    def serve():
        with listener, listener.accept()[0] as sock:
            if greeting:
                sock.recv(1 << 16)
                sock.sendall(greeting)
            sock.recv(1 << 16)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE_S)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        thread.join()


@contextmanager
def connected(address):
    """A socket that tells when it waits too long."""
    with socket.create_connection(address, timeout=PATIENCE_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sock


def send(sock, data, cuts):
    """Send in pieces cut at these places; whether the other end took it all."""
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    try:
        for start, end in itertools.pairwise(edges):
            sock.sendall(data[start:end])
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def receive(sock):
    """The next bytes; nothing at the end, however it came."""
    try:
        return sock.recv(1 << 16)
    except ConnectionResetError:
        return b""


def many(request):
    """How often to try, on each of the two transports."""
    return settings(
        max_examples=max(1, request.config.getoption("examples") // 2),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
