"""Whoever has something to read is woken, so many in a pass of the loop, by its own socket alone. Over socket pairs."""

import socket
import struct
from contextlib import asynccontextmanager

import pytest
import trio
from edge_service import PATIENCE_S, open_service, until

from trio_swarm.edge.readability import MOST_A_PASS, Readability

CROWD = 4 * MOST_A_PASS


@pytest.fixture
def pair():
    """Gives pairs of sockets: one for Trio to read from, one to write into."""
    made = []

    def make():
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        made.extend((ours, theirs))
        return trio.socket.from_stdlib_socket(ours), theirs

    yield make
    for sock in made:
        sock.close()


class Passes(trio.abc.Instrument):
    """By how much a list grows in one pass of Trio's loop, at most."""

    def __init__(self, growing):
        self.growing = growing
        self.before = 0
        self.most = 0

    def before_io_wait(self, timeout):
        self.most = max(self.most, len(self.growing) - self.before)
        self.before = len(self.growing)


@asynccontextmanager
async def running():
    readability = Readability()
    async with trio.open_nursery() as nursery:
        await nursery.start(readability.run)
        yield readability
        nursery.cancel_scope.cancel()


async def until_asleep():
    """Until nothing runs any more; what another task has in the kernel comes before."""
    await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.mark.parametrize("comes", ["bytes", "end", "reset"])
async def test_whatever_comes_wakes(pair, comes):
    """Bytes, the end, and an error."""
    if comes == "reset":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours = trio.socket.from_stdlib_socket(listener.accept()[0])
    else:
        ours, theirs = pair()
    with ours, theirs:
        async with running() as readability, trio.open_nursery() as nursery:
            nursery.start_soon(readability.wait, ours)
            await until_asleep()
            assert 1 == len(readability)
            if comes == "bytes":
                theirs.send(b"x")
            elif comes == "end":
                theirs.shutdown(socket.SHUT_WR)
            else:
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                theirs.close()
        assert 0 == len(readability)


async def test_what_was_left_wakes_again(pair):
    """One who has not read all."""
    ours, theirs = pair()
    theirs.send(b"xy")
    async with running() as readability:
        for byte in (b"x", b"y"):
            await readability.wait(ours)
            assert byte == await ours.recv(1)


async def test_what_nobody_waits_for_wakes_nobody(pair):
    """Bytes that are left unread do not keep the loop going round."""
    ours, theirs = pair()
    async with running() as readability:
        theirs.send(b"x")
        await readability.wait(ours)
        with trio.fail_after(PATIENCE_S):
            await until_asleep()


async def test_a_crowd_is_woken_in_parts_and_in_turn(pair):
    """However many are ready, others have their turn in between; and nobody is woken twice before all have been."""
    pairs = [pair() for _ in range(CROWD)]
    woken = []
    passes = Passes(woken)

    async def read(number, sock):
        while True:
            await readability.wait(sock)
            woken.append(number)

    async with running() as readability, trio.open_nursery() as nursery:
        for number, (ours, _) in enumerate(pairs):
            nursery.start_soon(read, number, ours)
        await until_asleep()
        assert [] == woken
        for _, theirs in pairs:
            theirs.send(b"x")  # never read: each is ready again at once
        trio.lowlevel.add_instrument(passes)
        while len(woken) < 3 * CROWD:
            await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(passes)
        nursery.cancel_scope.cancel()
    assert MOST_A_PASS == passes.most
    for start in range(0, 3 * CROWD, CROWD):
        assert sorted(woken[start : start + CROWD]) == list(range(CROWD))


async def test_who_has_left_is_not_woken_and_the_number_is_free(pair):
    """A socket that takes over the number of one whose reader was cancelled is alone with its own reader."""
    async with running() as readability:
        ours, _ = pair()
        number = ours.fileno()
        with trio.move_on_after(0.01):
            await readability.wait(ours)
        ours.close()
        assert 0 == len(readability)
        others = [pair() for _ in range(3)]
        ours, theirs = next(each for each in others if each[0].fileno() == number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(readability.wait, ours)
            await until_asleep()
            theirs.send(b"x")
        assert b"x" == await ours.recv(1)


async def test_a_late_cancellation_leaves_the_new_reader_alone(pair):
    """The old one's socket is closed without a word, and its number is waited for already when the old one goes."""
    async with running() as readability, trio.open_nursery() as nursery:
        old = trio.CancelScope()

        async def wait_in(scope, sock):
            with scope:
                await readability.wait(sock)

        first, _ = pair()
        number = first.fileno()
        nursery.start_soon(wait_in, old, first)
        await until_asleep()
        first.detach()
        socket.close(number)
        ours, theirs = next(each for each in [pair() for _ in range(3)] if each[0].fileno() == number)
        nursery.start_soon(readability.wait, ours)
        await until_asleep()
        old.cancel()
        await until_asleep()
        assert 1 == len(readability)
        theirs.send(b"x")


async def test_who_closes_wakes_first(pair):
    """The one that waits then sees a closed socket."""
    ours, _ = pair()
    async with running() as readability, trio.open_nursery() as nursery:
        nursery.start_soon(readability.wait, ours)
        await until_asleep()
        readability.wake(ours.fileno())
        ours.close()
    readability.wake(-1)  # and for nobody it does nothing


@pytest.mark.parametrize("runs", [False, True])
async def test_a_closed_socket_is_refused(pair, runs):
    """Each time."""
    ours, _ = pair()
    ours.close()
    async with running() as here:
        readability = here if runs else Readability()
        for _ in range(2):
            with pytest.raises(OSError, match="closed"):
                await readability.wait(ours)


async def test_a_service_reads_through_it():
    """A connection of the whole service waits here, and a crowd of them is read in parts."""
    async with open_service() as service, await service.connect() as stream:
        await until(lambda: len(service.edge.readability) == 1)
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await stream.receive_some()


@pytest.mark.parametrize("begun", [False, True])
async def test_where_it_does_not_run_trio_waits(pair, begun):
    """Before it runs, and for those who waited as it ended."""
    readability = Readability()
    ours, theirs = pair()
    read = []

    async def wait():
        while not read:
            await readability.wait(ours)
            try:
                read.append(ours._sock.recv(1))
            except BlockingIOError:
                continue

    async with trio.open_nursery() as nursery:
        if begun:
            async with trio.open_nursery() as inner:
                await inner.start(readability.run)
                nursery.start_soon(wait)
                await until_asleep()
                inner.cancel_scope.cancel()
        else:
            nursery.start_soon(wait)
        await until_asleep()
        assert [] == read
        theirs.send(b"x")
    assert [b"x"] == read
