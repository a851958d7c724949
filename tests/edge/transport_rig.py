"""A real socket pair: a direct transport at one end, a host that writes between, and a reader of every byte."""

import socket
from contextlib import asynccontextmanager

import psutil
import trio

from trio_swarm.edge.direct import DirectTransport
from trio_swarm.edge.headway import Writes
from trio_swarm.edge.writability import Writability
from trio_swarm.edge.write_gate import WriteGate


def message(tag, number, size):
    """A frame of the tests' own: tag, number, length, and a body that shows any cut or mixture."""
    return b"%c%06d%08d" % (tag, number, size) + bytes([tag]) * size


def parse(data):
    """Cut bytes into (tag, number, size); raises where they are no whole frames."""
    found = []
    while data:
        tag, number, size = data[0], int(data[1:7]), int(data[7:15])
        body = data[15 : 15 + size]
        assert body == bytes([tag]) * size, "a frame is cut or mixed"
        found.append((tag, number, size))
        data = data[15 + size :]
    return found


def open_descriptors():
    """How many this process has open."""
    return psutil.Process().num_fds()


class Pair:
    """Stands where a connection does: `ours` is written to, `theirs` is the client's end."""

    def __init__(self, writability, buffer=4096):
        self.ours, self.theirs = socket.socketpair()
        for sock in (self.ours, self.theirs):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.gate = WriteGate()
        self.last_byte_at = None
        self.send_now = self.ours.send
        self.aborted = []
        self.writes = Writes()
        self.received = b""
        self.transport = DirectTransport(self, writability)

    def fileno(self):
        return self.ours.fileno()

    def abort(self, reason):
        self.aborted.append(reason)
        self.transport.lost(reason)
        self.ours.close()

    async def host_write(self, data):
        """Write as Hypercorn does: in its turn, waiting, in pieces."""
        await self.gate.enter()
        while data:
            try:
                data = data[self.ours.send(data[:1000]) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.ours)
            else:
                await trio.lowlevel.checkpoint()
        self.gate.leave()

    def read(self, most=1 << 20):
        """Let the client read what is there, at most so much."""
        try:
            self.received += self.theirs.recv(most)
        except BlockingIOError:
            return False
        return True

    async def read_until(self, done):
        """Let the client read until `done()`."""
        with trio.fail_after(60):
            while not done():
                if not self.read():
                    await trio.sleep(0.0005)
                await trio.lowlevel.checkpoint()

    def fill(self, tag=102):
        """Write frames until the kernel takes no more; gives the number of frames."""
        number = 0
        while self.transport.ready:
            self.transport.write(message(tag, number, 3000))
            number += 1
        return number

    def close(self):
        self.transport.lost("the test is over")
        self.ours.close()
        self.theirs.close()


@asynccontextmanager
async def pair(buffer=4096):
    """A pair with its writability task running; no descriptor is left at the end."""
    before = open_descriptors()
    writability = Writability()
    async with trio.open_nursery() as nursery:
        await nursery.start(writability.run)
        made = Pair(writability, buffer)
        try:
            yield made
        finally:
            made.close()
            assert len(writability) == 0, "a socket is still watched"
            nursery.cancel_scope.cancel()
    assert open_descriptors() <= before  # less, where a collection has closed what an earlier test dropped
