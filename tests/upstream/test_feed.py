"""A supervised feed against a scripted upstream, over memory streams in virtual time, and over real sockets."""

import pytest
import trio
from feed_owner import Owner, run_script

from trio_swarm.errors import SettingsError
from trio_swarm.settings import FeedSettings, Limits, UpstreamSettings
from trio_swarm.testing.upstream import Flood, Garbage, Good, ScriptedUpstream, Vanish
from trio_swarm.upstream.feed import WebSocketFeed


async def test_an_idle_feed_stays_live(autojump_clock):
    """Hours without an event are no silence: the pings are answered."""

    async def until(_owner):
        await trio.sleep(7200)

    owner = await run_script([], until)
    told = owner.feed.statistics()
    assert [state for _, state, _ in owner.states] == ["connecting", "live"]
    assert told.last_pong_at == pytest.approx(owner.began + 7200, abs=10.1)
    assert told.attempts == 1


async def test_a_busy_object_holds_the_feed_back_and_it_stays_live(autojump_clock):
    """An object that takes nothing for ten minutes: the upstream waits, nothing is lost, nobody takes it for dead."""
    upstream = ScriptedUpstream([Flood(400)], lockstep=True)
    owner = Owner(upstream)
    free = trio.Event()

    async def deliver(event):
        owner.events.append(event.decode()["value"])
        await free.wait()

    async with trio.open_nursery() as nursery:
        await nursery.start(upstream.run)
        owner.began = trio.current_time()
        nursery.start_soon(owner.feed.run, deliver, owner.status)
        await trio.sleep(600)
        assert owner.events == [0]
        assert len(upstream.connections[0]._outbox) > 350
        free.set()
        await trio.sleep(60)
        assert owner.events == list(range(400))
        assert [state for _, state, _ in owner.states] == ["connecting", "live"]
        nursery.cancel_scope.cancel()


async def test_pongs_are_seen_while_an_object_is_busy(autojump_clock):
    """A few frames that wait for an object do not hide the answers to pings."""
    upstream = ScriptedUpstream([Flood(5)])
    owner = Owner(upstream)

    async def deliver(_event):
        await trio.sleep(1000)

    async with trio.open_nursery() as nursery:
        await nursery.start(upstream.run)
        owner.began = trio.current_time()
        nursery.start_soon(owner.feed.run, deliver, owner.status)
        await trio.sleep(95)
        assert owner.feed.statistics().last_pong_at == owner.began + 90
        nursery.cancel_scope.cancel()


async def test_subscriptions_follow_what_is_wanted(autojump_clock):
    """Only differences are sent on a connection, and all that is wanted on the next one."""
    upstream = ScriptedUpstream([Good(seconds=10)])
    owner = Owner(upstream, topics=())
    async with trio.open_nursery() as nursery:
        await nursery.start(upstream.run)
        owner.feed.subscribe(["before"])
        nursery.start_soon(owner.run)
        await upstream.wait_topics("before")
        owner.feed.subscribe(["x", "before"])
        owner.feed.subscribe(["y"])
        await upstream.wait_topics("before", "x", "y")
        owner.feed.unsubscribe(["before", "never"])
        await upstream.wait_topics("x", "y")
        first = upstream.connections[0].received
        assert [text.replace('"topics":', "") for text in first] == [
            '{"op":"subscribe",["before"]}',
            '{"op":"subscribe",["x","y"]}',
            '{"op":"unsubscribe",["before"]}',
        ]
        await owner.wait_state("live", times=2)
        await upstream.wait_topics("x", "y")
        assert len(upstream.connections[1].received) == 1
        upstream.publish("x", 1)
        upstream.publish("before", 2)
        await trio.sleep(1)
        assert [event["value"] for event in owner.events] == [1]
        nursery.cancel_scope.cancel()


async def test_what_deliver_raises_comes_out_as_it_is(autojump_clock):
    """A fault of the object is not the feed's: it ends the feed, unwrapped, and nothing is left of it."""
    upstream = ScriptedUpstream([Flood(3)])
    owner = Owner(upstream)

    async def deliver(event):
        await trio.lowlevel.checkpoint()
        raise LookupError(event.topic)

    async with trio.open_nursery() as nursery:
        await nursery.start(upstream.run)
        owner.began = trio.current_time()
        with pytest.raises(LookupError, match="flood"):
            await owner.feed.run(deliver, owner.status)
        assert upstream.open_streams == 0
        nursery.cancel_scope.cancel()


async def test_a_frame_beyond_the_limit_ends_the_connection(autojump_clock):
    """Frames up to the limit are taken; a larger one is the feed's fault, and costs no memory."""
    fits, large = '{"x":"%s"}' % ("a" * 900), '{"x":"%s"}' % ("a" * 1100)
    upstream = ScriptedUpstream([Garbage((fits, large, fits))])
    owner = Owner(upstream, limits=Limits(upstream_frame_bytes=1000))
    async with trio.open_nursery() as nursery:
        await nursery.start(upstream.run)
        nursery.start_soon(owner.run)
        await owner.wait_state("connecting", times=2)
        assert len(owner.events) == 1
        assert "1009" in owner.states[-1][2]
        nursery.cancel_scope.cancel()


async def test_a_goodbye_is_sent(autojump_clock):
    """A feed that is cancelled closes with 1000; its peer need not guess."""
    closed = []

    class Watching(ScriptedUpstream):
        async def _behave(self, connection, stream, served):
            try:
                await super()._behave(connection, stream, served)
            finally:
                closed.append(served._websocket.closed.code)

    upstream = Watching()
    owner = Owner(upstream)
    async with trio.open_nursery() as nursery:
        await nursery.start(upstream.run)
        with trio.move_on_after(5):
            await owner.run()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert closed == [1000]


async def test_a_peer_that_takes_nothing_is_dead(autojump_clock):
    """What cannot be sent for 30 s ends the connection, although bytes still come."""
    upstream = ScriptedUpstream(lockstep=True)
    owner = Owner(upstream)
    async with trio.open_nursery() as nursery:
        await nursery.start(upstream.run)
        nursery.start_soon(owner.run)
        await owner.wait_state("live")
        connection = owner.feed._connection
        stuck = connection._stream
        stuck._stream = _Stuck(stuck._stream)
        owner.feed.subscribe(["more"])
        began = trio.current_time()
        await owner.wait_state("connecting", times=2)
        assert trio.current_time() - began == 30
        assert "took nothing for 30 s" in owner.states[-1][2]
        nursery.cancel_scope.cancel()


class _Stuck:
    def __init__(self, stream):
        self._inner = stream
        self.aclose = stream.aclose

    async def send_all(self, data):
        await trio.sleep_forever()

    async def receive_some(self, max_bytes):
        await trio.sleep(1)
        return b"\x8a\x00"  # a pong that nobody asked for


@pytest.mark.parametrize("url", ["http://x", "ws://", "ws://x:y", "x", "ws://[::1"])
def test_a_url_that_is_none(url):
    """A URL that leads nowhere is the operator's error, told before anything connects."""
    with pytest.raises(SettingsError, match="feed f"):
        WebSocketFeed(FeedSettings("f", url, protocol="coinbase"))


async def test_nobody_listens_on_a_real_port():
    """A refused TCP connection is a failure like any other."""
    with trio.socket.socket() as free:
        await free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        quick = UpstreamSettings(backoff_initial_s=0.001, backoff_max_s=0.002, quick_restarts=1)
        feed = WebSocketFeed(FeedSettings("f", f"ws://127.0.0.1:{port}", protocol="coinbase"), upstream=quick)
        told = []
        with trio.CancelScope() as scope:

            def status(state, reason):
                told.append((state, reason))
                if state == "down":
                    scope.cancel()

            await feed.run(None, status)
    assert [state for state, _ in told] == ["connecting", "down"]
    assert "cannot connect" in told[1][1]


async def test_a_real_socket():
    """Over TCP, after a reconnect: events come in order, each once, and the socket is closed in the end."""
    upstream = ScriptedUpstream([Vanish(0.05)])
    async with trio.open_nursery() as nursery:
        await nursery.start(upstream.serve)
        quick = UpstreamSettings(backoff_initial_s=0.01, backoff_max_s=0.02)
        feed = WebSocketFeed(upstream.settings(topics=("a",)), upstream=quick)
        events = []

        async def deliver(event):
            events.append((event.topic, event.sequence))
            await trio.lowlevel.checkpoint()
            if len(events) == 100:
                inner.cancel_scope.cancel()

        async with trio.open_nursery() as inner:
            inner.start_soon(_publish, upstream)
            await feed.run(deliver, lambda state, reason: None)
        with trio.fail_after(60):
            await upstream.wait_until(lambda upstream: not any(c.open for c in upstream.connections))
        nursery.cancel_scope.cancel()
    assert events == [("a", n) for n in range(1, 101)]


async def _publish(upstream):
    await upstream.wait_until(lambda upstream: len(upstream.connections) > 1)
    await upstream.wait_topics("a")
    for n in range(100):
        upstream.publish("a", n)
