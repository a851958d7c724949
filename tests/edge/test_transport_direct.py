"""The direct transport and its gate over real socket pairs: whole frames, in order, whoever writes, whoever reads."""

import socket

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transport_rig import Pair, message, pair, parse

from trio_swarm.edge.direct import DirectTransport
from trio_swarm.edge.writability import Writability

DIRECT, HOST, WAITING = b"dhs"

sizes = st.one_of(st.integers(0, 200), st.integers(0, 30_000))
operations = st.lists(
    st.one_of(
        st.tuples(st.just("direct"), sizes),
        st.tuples(st.just("host"), sizes),
        st.tuples(st.just("send"), sizes),
        st.tuples(st.just("cancelled"), sizes),
        st.tuples(st.just("read"), st.integers(1, 20_000)),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    max_size=40,
)


@given(operations)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_written_by_whom_arrives_whole_in_order_and_once(steps):
    """Cuts at any byte: frames of the broadcaster, of `send` and of the host arrive whole, in order, each once."""

    async def main():
        written = {DIRECT: [], HOST: [], WAITING: []}
        hosts = 0
        async with pair() as ends, trio.open_nursery() as nursery:

            async def host(number, size):
                nonlocal hosts
                await ends.host_write(message(HOST, number, size))
                hosts -= 1

            async def send(number, size):
                await ends.transport.send(message(WAITING, number, size))

            async def cancelled(size):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await ends.transport.send(message(WAITING, 999_999, size))

            for step, size in steps:
                if step == "direct" and ends.transport.ready:
                    ends.transport.write(message(DIRECT, len(written[DIRECT]), size))
                    written[DIRECT].append(size)
                elif step == "host":
                    hosts += 1
                    nursery.start_soon(host, len(written[HOST]), size)
                    written[HOST].append(size)
                    await trio.lowlevel.checkpoint()
                elif step == "send":
                    nursery.start_soon(send, len(written[WAITING]), size)
                    written[WAITING].append(size)
                    await trio.lowlevel.checkpoint()
                elif step == "cancelled":
                    nursery.start_soon(cancelled, size)
                    await trio.lowlevel.checkpoint()
                elif step == "read":
                    ends.read(size)
                else:
                    await trio.lowlevel.checkpoint()
            total = sum(15 + size for kind in written.values() for size in kind)
            await ends.read_until(lambda: len(ends.received) >= total)
            await ends.read_until(lambda: ends.transport.ready)
            assert hosts == 0
            assert ends.transport.blocked_since is None
            assert ends.aborted == []
        found = parse(ends.received)
        for kind, expected in written.items():
            mine = [(number, size) for tag, number, size in found if tag == kind]
            if kind != DIRECT:  # tasks of one batch start in an order that Trio chooses
                mine.sort()
            assert list(enumerate(expected)) == mine

    trio.run(main)


async def test_a_full_socket_makes_it_not_ready_and_a_reader_makes_it_ready_again():
    """What the kernel did not take stays as one rest; `on_ready` is called once when it has gone."""
    called = []
    async with pair() as ends:
        ends.transport.on_ready = lambda: called.append(ends.transport.ready)
        count = ends.fill()
        assert ends.transport.outstanding
        assert ends.transport.blocked_since is not None
        assert called == []
        await ends.read_until(lambda: called)
        assert called == [True]
        assert ends.transport.blocked_since is None
        while ends.read():
            pass
        assert [(ord("f"), number, 3000) for number in range(count)] == parse(ends.received)


async def test_blocked_since_moves_with_progress_and_only_with_progress():
    """A slow reader moves `blocked_since`; one that stopped does not, so the caller sees the stall."""
    async with pair() as ends:
        ends.fill()
        ends.transport.on_ready = None
        stopped = ends.transport.blocked_since
        await trio.sleep(0.02)
        ends.transport._flush()  # as when the kernel wakes it for nothing
        assert ends.transport.blocked_since == stopped
        while ends.transport.ready is False:
            ends.read(100_000)
            await trio.sleep(0.001)
        ends.transport.write(bytes(1_000_000))  # far more than the kernel holds: many pieces
        first = ends.transport.blocked_since
        await trio.sleep(0.005)
        ends.read(100_000)
        await ends.read_until(lambda: ends.transport.blocked_since != first)
        assert ends.transport.blocked_since > first


async def test_the_host_waits_for_a_frame_that_is_partly_out_and_is_not_overtaken():
    """The gate: the host's bytes come right behind the outstanding frame, though the broadcaster wants to go on."""
    async with pair() as ends, trio.open_nursery() as nursery:
        count = ends.fill()
        ends.transport.on_ready = lambda: ends.transport.write(message(DIRECT, 1, 10))
        nursery.start_soon(ends.host_write, message(HOST, 0, 5000))
        await trio.testing.wait_all_tasks_blocked()
        assert not ends.transport.ready
        await ends.read_until(lambda: len(ends.received) == count * 3015 + 5015 + 25)
        assert [HOST, DIRECT] == [tag for tag, _, _ in parse(ends.received)[count:]]


async def test_while_the_host_writes_nothing_is_written_directly():
    """The other way round: a host half through its bytes holds the direct side, which is told when it may go on."""
    async with pair() as ends, trio.open_nursery() as nursery:
        nursery.start_soon(ends.host_write, message(HOST, 0, 200_000))
        await trio.testing.wait_all_tasks_blocked()
        assert not ends.transport.ready
        assert not ends.transport.outstanding
        ends.transport.on_ready = lambda: ends.transport.write(message(DIRECT, 1, 10))
        await ends.read_until(lambda: len(ends.received) == 200_015 + 25)
        assert [HOST, DIRECT] == [tag for tag, _, _ in parse(ends.received)]


async def test_hosts_write_one_after_the_other_in_the_order_in_which_they_asked():
    """A turn is handed on: one that asks while it changes hands does not slip in between."""
    async with pair() as ends, trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(ends.host_write, message(HOST, number, 50_000))
            await trio.testing.wait_all_tasks_blocked()
        await ends.read_until(lambda: len(ends.received) > 50_015)
        nursery.start_soon(ends.host_write, message(HOST, 2, 50_000))
        await ends.read_until(lambda: len(ends.received) == 3 * 50_015)
        assert [0, 1, 2] == [number for _, number, _ in parse(ends.received)]


async def test_a_host_that_is_cancelled_while_it_waits_leaves_the_gate_as_it_was():
    """Cancelled before its turn: nothing of it is written, the next host and the direct side go on."""
    async with pair() as ends, trio.open_nursery() as nursery:
        count = ends.fill()
        with trio.CancelScope() as scope:
            nursery.start_soon(ends.host_write, message(HOST, 1, 100))
            scope.cancel()
            await ends.host_write(message(HOST, 0, 100))
        await ends.read_until(lambda: ends.transport.ready)
        await ends.read_until(lambda: len(ends.received) == count * 3015 + 115)
        assert [(HOST, 1, 100)] == parse(ends.received)[count:]
        assert ends.gate.open


async def test_send_goes_before_the_broadcaster_and_in_order():
    """An answer is not held back by a flood: those who wait in `send` are served before `on_ready`."""
    async with pair() as ends, trio.open_nursery() as nursery:
        count = ends.fill()
        ends.transport.on_ready = lambda: ends.transport.write(message(DIRECT, 1, 10))
        for number in range(3):
            nursery.start_soon(ends.transport.send, message(WAITING, number, 10))
            await trio.testing.wait_all_tasks_blocked()
        await ends.read_until(lambda: len(ends.received) == count * 3015 + 4 * 25)
        tail = parse(ends.received)[count:]
        assert [(WAITING, 0, 10), (WAITING, 1, 10), (WAITING, 2, 10), (DIRECT, 1, 10)] == tail


async def test_drained_waits_until_everything_is_with_the_kernel():
    """`drained` returns when no rest is left, at once when there is none."""
    async with pair() as ends, trio.open_nursery() as nursery:
        await ends.transport.drained()
        ends.fill()
        nursery.start_soon(ends.read_until, lambda: ends.transport.ready)
        await ends.transport.drained()
        assert not ends.transport.outstanding


async def test_a_peer_that_went_away_is_aborted_once_and_write_never_raises():
    """A write to a closed peer aborts the connection; everything afterwards does nothing."""
    async with pair() as ends:
        ends.theirs.close()
        ends.transport.write(b"x")
        assert ends.aborted == ["the peer is gone"]
        assert ends.transport.closed
        ends.transport.write(b"x")
        ends.transport.abort("again")
        assert ends.aborted == ["the peer is gone"]
        await ends.transport.wait_closed()
        with pytest.raises(trio.BrokenResourceError, match="the peer is gone"):
            await ends.transport.send(b"x")


async def test_a_peer_that_goes_away_while_the_socket_is_full_is_noticed():
    """The writability task sees the failure, and everyone who waits is told."""
    async with pair() as ends, trio.open_nursery() as nursery:
        ends.fill()

        async def waits():
            with pytest.raises(trio.BrokenResourceError):
                await ends.transport.send(b"never")

        nursery.start_soon(waits)
        nursery.start_soon(ends.transport.wait_closed)
        await trio.testing.wait_all_tasks_blocked()
        ends.theirs.close()
        with trio.fail_after(60):
            await ends.transport.wait_closed()
        assert ends.aborted == ["the peer is gone"]


async def test_a_descriptor_that_is_gone_is_an_abort_and_its_number_is_never_written_to():
    """The socket closed under the transport, and its number belongs to a stranger: the stranger gets nothing."""
    async with pair() as ends:
        number = ends.ours.fileno()
        ends.ours.close()
        stranger, far = socket.socketpair()
        try:
            assert stranger.fileno() == number, "the number was not taken over; the test shows nothing"
            far.setblocking(False)
            ends.transport.write(b"secret")
            assert ends.aborted == ["the peer is gone"]
            with pytest.raises(BlockingIOError):
                far.recv(100)
        finally:
            stranger.close()
            far.close()


async def test_a_full_socket_that_closes_is_forgotten_before_its_number_is_used_again():
    """`lost` takes the socket out of the table: a stranger that gets its number is called for by nobody."""
    async with pair() as ends:
        ends.fill()
        writability = ends.transport._writability
        assert len(writability) == 1
        ends.transport.abort("stalled")
        assert len(writability) == 0
        assert ends.aborted == ["stalled"]


async def test_after_detach_nothing_is_written_but_the_rest_of_a_begun_frame():
    """Detached in the middle of a frame: its rest goes out, then the host's bytes; nothing of ours any more."""
    async with pair() as ends, trio.open_nursery() as nursery:
        count = ends.fill()
        ends.transport.on_ready = lambda: ends.transport.write(message(DIRECT, 1, 10))
        ends.transport.detach()
        ends.transport.detach()
        assert ends.transport.closed
        ends.transport.write(message(DIRECT, 2, 10))
        nursery.start_soon(ends.host_write, message(HOST, 0, 100))
        await ends.read_until(lambda: len(ends.received) == count * 3015 + 115)
        assert [HOST] == [tag for tag, _, _ in parse(ends.received)[count:]]
        await ends.read_until(lambda: ends.gate.direct is None)
        assert ends.aborted == []
        assert not ends.transport.ready


async def test_a_payload_written_while_not_ready_costs_the_client_its_connection():
    """It cannot be kept and must not vanish: the client is aborted, comes back and resumes."""
    async with pair() as ends:
        ends.fill()
        ends.transport.write(b"too early")
        assert ends.aborted == ["lost a payload"]


async def test_a_cancelled_send_writes_nothing():
    """Cancelled while it waits for its turn: not one byte of it arrives."""
    async with pair() as ends:
        count = ends.fill()
        with trio.move_on_after(0.01):
            await ends.transport.send(message(WAITING, 0, 10))
        await ends.read_until(lambda: ends.transport.ready)
        while ends.read():
            pass
        assert count == len(parse(ends.received))


async def test_a_callback_that_raises_ends_neither_the_task_nor_the_other_sockets():
    """One client's error stays its own."""
    async with pair() as ends:
        other = Pair(ends.transport._writability)
        try:
            for each in (ends, other):
                each.fill()

            def raises():
                raise RuntimeError("planted")

            ends.transport.on_ready = raises
            await ends.read_until(lambda: ends.transport.ready)
            await other.read_until(lambda: other.transport.ready)
        finally:
            other.close()


async def test_full_sockets_cost_no_task():
    """All full sockets wait in one task."""
    async with pair() as ends:
        others = [Pair(ends.transport._writability) for _ in range(100)]
        before = trio.lowlevel.current_statistics().tasks_living
        for other in others:
            other.fill()
        await trio.testing.wait_all_tasks_blocked()
        assert before == trio.lowlevel.current_statistics().tasks_living
        for other in others:
            await other.read_until(lambda other=other: other.transport.ready)
            other.close()


async def test_without_epoll_the_same_holds(monkeypatch):
    """Where the kernel has no epoll each full socket has a task for as long as it is full, and no longer."""
    monkeypatch.delattr("select.epoll", raising=False)
    async with pair() as ends:
        before = trio.lowlevel.current_statistics().tasks_living
        count = ends.fill()
        assert before + 1 == trio.lowlevel.current_statistics().tasks_living
        await ends.read_until(lambda: ends.transport.ready)
        while ends.read():
            pass
        assert count == len(parse(ends.received))
        ends.fill()
        ends.transport.abort("stalled")
        await trio.testing.wait_all_tasks_blocked()
        assert before == trio.lowlevel.current_statistics().tasks_living


async def test_watching_after_the_end_aborts():
    """The task has ended (shutdown): a client whose socket is full then is aborted, not forgotten."""
    writability = Writability()
    async with trio.open_nursery() as nursery:
        await nursery.start(writability.run)
        nursery.cancel_scope.cancel()
    ends = Pair(writability)
    try:
        while ends.transport.ready:
            ends.transport.write(bytes(3000))
        assert ends.aborted == ["the socket cannot be waited for"]
    finally:
        ends.close()


def test_an_idle_transport_is_small():
    """No dictionary, no event, no queue for a client that nobody waits for."""
    ends = Pair(Writability())
    assert not hasattr(ends.transport, "__dict__")
    assert ends.transport._turns is None
    assert ends.transport._ended is None
    ends.close()


def test_only_one_direct_transport_stands_at_the_gate():
    """The newest one is the gate's; detaching an old one does not take the new one's place."""
    ends = Pair(Writability())
    old = ends.transport
    new = DirectTransport(ends, old._writability)
    old.detach()
    assert ends.gate.direct is new
    new.detach()
    assert ends.gate.direct is None
    ends.close()


# A cancellation and a turn in one step

REPEATED = 200


async def in_one_step(wait, act):
    """Let somebody wait for a turn, do `act(transport, scope)` without a checkpoint; gives the outcome and the pair."""
    outcome = []

    async def waits(scope):
        with scope:
            try:
                await wait(ends.transport)
            except trio.Cancelled:
                outcome.append("cancelled")
                raise
            except trio.BrokenResourceError:
                outcome.append("closed")
            else:
                outcome.append("done")

    async with pair() as ends, trio.open_nursery() as nursery:
        ends.transport.ready = False  # as while a host writes; the socket itself is free
        scopes = [trio.CancelScope(), trio.CancelScope()]
        for scope in scopes:
            nursery.start_soon(waits, scope)
            await trio.testing.wait_all_tasks_blocked()
        act(ends.transport, scopes[0])
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(10):  # a frame or two, or the end of the file again and again
            ends.read()
        nursery.cancel_scope.cancel()
    return outcome, [number for _, number, _ in parse(ends.received)]


def sends(transport):
    return transport.send(message(WAITING, 1, 10))


def drains(transport):
    return transport.drained()


def cancel_then_give(transport, scope):
    scope.cancel()
    transport._give_turns()


def give_then_cancel(transport, scope):
    transport._give_turns()
    scope.cancel()


def cancel_then_end(transport, scope):
    scope.cancel()
    transport.detach()


def end_then_cancel(transport, scope):
    transport.detach()
    scope.cancel()


def cancel_give_end(transport, scope):
    cancel_then_give(transport, scope)
    transport.detach()


@pytest.mark.parametrize(
    ("act", "outcome", "written"),
    [
        (cancel_then_give, ["cancelled", "done"], 1),
        (give_then_cancel, ["done", "done"], 2),
        (cancel_then_end, ["cancelled", "closed"], 0),
        (end_then_cancel, ["closed", "closed"], 0),
        (cancel_give_end, ["cancelled", "closed"], 1),
    ],
)
@pytest.mark.parametrize("wait", [sends, drains])
def test_a_cancellation_beside_a_turn_is_the_one_or_the_other(wait, act, outcome, written):
    """In one step, in both orders: cancelled, and nothing was written; or given, and all of it was."""
    for _ in range(REPEATED):
        found, numbers = trio.run(in_one_step, wait, act)
        assert outcome == sorted(found)
        assert len(numbers) == (written if wait is sends else 0)


def test_a_turn_whose_write_fails_and_cancels_its_own_task_is_given_once():
    """The write aborts, the abort cancels the nursery of the task that waits: it is told so once, in one way."""

    def give_to_a_peer_that_is_gone(transport, scope):
        def fails(data):
            raise BrokenPipeError

        transport._send_now = fails
        below = transport._connection.abort
        transport._connection.abort = lambda reason: (scope.cancel(), below(reason))
        transport._give_turns()

    for _ in range(REPEATED):
        assert (["closed", "closed"], []) == trio.run(in_one_step, sends, give_to_a_peer_that_is_gone)
