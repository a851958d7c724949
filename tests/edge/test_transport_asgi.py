"""The portable transport: one payload held, one task that writes it, the same meaning of `ready`."""

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_swarm.edge.transport import AsgiTransport


class Server:
    """A host's `send` that takes a message when it is let, and remembers it."""

    def __init__(self, *, patient=True):
        self.got = []
        self.gate = trio.Event()
        self.delay = 0.0
        if patient:
            self.gate.set()

    async def send(self, message):
        await trio.sleep(self.delay)
        await self.gate.wait()
        self.got.append(message)


async def test_bytes_are_pieces_of_a_body_and_texts_are_messages(autojump_clock):
    """What a payload becomes, by kind."""
    server = Server()
    async with trio.open_nursery() as nursery:
        sse = AsgiTransport(server.send, "sse")
        await nursery.start(sse.run)
        await sse.send(b"data: 1\n\n")
        await sse.drained()
        websocket = AsgiTransport(server.send, "websocket")
        await nursery.start(websocket.run)
        await websocket.send(("a", "b"))
        await websocket.drained()
        nursery.cancel_scope.cancel()
    assert [
        {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True},
        {"type": "websocket.send", "text": "a"},
        {"type": "websocket.send", "text": "b"},
    ] == server.got


async def test_while_the_host_is_busy_it_is_not_ready_and_says_since_when(autojump_clock):
    """One payload at a time; `blocked_since` stands where nothing moves and follows each message of a batch."""
    server = Server(patient=False)
    ready = []
    async with trio.open_nursery() as nursery:
        transport = AsgiTransport(server.send, "websocket")
        transport.on_ready = lambda: ready.append(trio.current_time())
        await nursery.start(transport.run)
        transport.write(("a", "b"))
        began = trio.current_time()
        await trio.sleep(5)
        assert not transport.ready
        assert transport.blocked_since == began
        server.delay = 1.0
        server.gate.set()
        await trio.sleep(0.5)
        assert transport.blocked_since == began + 5
        await trio.sleep(1)
        assert transport.ready
        assert transport.blocked_since is None
        assert ready == [began + 6]
        nursery.cancel_scope.cancel()


@given(st.lists(st.tuples(st.sampled_from(["write", "send", "wait", "cancelled"]), st.integers(0, 3)), max_size=30))
@settings(max_examples=50, deadline=None)
def test_every_payload_arrives_once_and_in_order(steps):
    """The broadcaster's and `send`'s payloads all arrive once; what was cancelled while it waited does not."""

    async def main():
        server = Server()
        server.delay = 1.0
        expected, unwanted = [], []
        async with trio.open_nursery() as nursery:
            transport = AsgiTransport(server.send, "sse")
            await nursery.start(transport.run)

            async def give_up(payload):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await transport.send(payload)

            for number, (step, wait) in enumerate(steps):
                payload = b"%s %d" % (step.encode(), number)
                if step == "write" and transport.ready:
                    transport.write(payload)
                    expected.append(payload)
                elif step == "send":
                    expected.append(payload)
                    nursery.start_soon(transport.send, payload)
                    await trio.lowlevel.checkpoint()
                elif step == "cancelled":
                    unwanted.append(payload)
                    nursery.start_soon(give_up, payload)
                else:
                    await trio.sleep(wait)
            await trio.sleep(100)
            assert transport.ready
            nursery.cancel_scope.cancel()
        assert sorted(expected) == sorted(message["body"] for message in server.got)
        for kind in (b"write", b"send"):
            mine = [message["body"] for message in server.got if message["body"].startswith(kind)]
            if kind == b"write":
                assert [payload for payload in expected if payload.startswith(kind)] == mine

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("how", ["abort", "raise", "cancel"])
async def test_at_its_end_everyone_who_waits_is_told(how, autojump_clock):
    """Aborted, a host that raises, or a task that is cancelled: closed for good, and no one waits on."""
    server = Server(patient=False)

    async def broken(message):
        await server.send(message)
        raise OSError("gone")

    ended = []

    async def waits(function, *args):
        with pytest.raises(trio.BrokenResourceError):
            await function(*args)
        ended.append(function)

    async with trio.open_nursery() as nursery:
        transport = AsgiTransport(broken, "sse")
        with trio.CancelScope() as scope:
            nursery.start_soon(waits, transport.send, b"second")
            nursery.start_soon(waits, transport.drained)
            nursery.start_soon(transport.wait_closed)
            transport.write(b"first")
            async with trio.open_nursery() as inner:
                await inner.start(transport.run)
                await wait_all_tasks_blocked()
                if how == "abort":
                    transport.abort("stalled")
                    transport.abort("again")
                elif how == "raise":
                    server.gate.set()
                else:
                    scope.cancel()
        await transport.wait_closed()
        transport.write(b"third")
        assert not transport.ready
        assert transport.closed_by == {"abort": "stalled"}.get(how, "the peer is gone")
    assert len(ended) == 2


async def test_detached_it_finishes_what_it_holds_and_takes_nothing_more(autojump_clock):
    """`detach` lets the held payload out, then `run` returns by itself."""
    server = Server()
    server.delay = 1.0
    async with trio.open_nursery() as nursery:
        transport = AsgiTransport(server.send, "sse")
        await nursery.start(transport.run)
        transport.write(b"last")
        transport.detach()
        transport.write(b"too late")
        with pytest.raises(trio.BrokenResourceError):
            await transport.send(b"too late")
    assert [b"last"] == [message["body"] for message in server.got]


async def test_on_our_host_an_abort_is_as_hard_as_a_direct_one(autojump_clock):
    """With the connection given (TLS) `abort` reaches it, and the time of the last byte is known."""

    class Below:
        last_byte_at = 4.0
        aborted = ""

        def abort(self, reason):
            self.aborted = reason

    below = Below()
    transport = AsgiTransport(Server().send, "sse", below)
    transport.abort("stalled")
    assert below.aborted == "stalled"
    assert transport.last_byte_at == 4.0
    assert AsgiTransport(Server().send, "sse").last_byte_at is None
    await transport.run()


async def test_written_while_not_ready_it_gives_the_client_up(autojump_clock):
    """The payload would be lost: the client has to come back and resume."""
    transport = AsgiTransport(Server().send, "sse")
    transport.write(b"one")
    transport.write(b"two")
    assert transport.closed_by == "lost a payload"
    await transport.run()
