"""The feed server: what a subscriber gets, in virtual time over memory streams."""

import json
from contextlib import asynccontextmanager

import pytest
import trio
import trio_websocket
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair

from trio_swarm.demo.feed import CLIENTS, FeedServer, serve_feed
from trio_swarm.demo.simulation import Simulation


class Reader:
    """A client of the feed."""

    def __init__(self, websocket):
        self.websocket = websocket

    async def say(self, message):
        text = message if isinstance(message, str | bytes) else json.dumps(message)
        await self.websocket.send_message(text)

    async def hear(self):
        return json.loads(await self.websocket.get_message())

    async def hear_for(self, seconds):
        heard = []
        with trio.move_on_after(seconds):
            while True:
                heard.append(await self.hear())
        return heard


@asynccontextmanager
async def open_feed(*, pair=memory_stream_pair):
    """A server in virtual time, and a function that connects to it."""
    server = FeedServer(Simulation(11), lambda: int(trio.current_time() * 1000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.tick)

        async def connect():
            ours, theirs = pair()
            nursery.start_soon(server.serve, theirs)
            return Reader(await trio_websocket.wrap_client_stream(nursery, ours, "demo", "/"))

        yield server, connect
        nursery.cancel_scope.cancel()


async def test_a_star_is_every_match(autojump_clock):
    """Who subscribes to `*` is told so, then how every match stands, then every change, stamped with the clock."""
    async with open_feed() as (server, connect):
        reader = await connect()
        await reader.say({"subscribe": ["*"]})
        assert await reader.hear() == {"subscribed": ["*"]}
        standing = [await reader.hear() for _ in range(12)]
        assert {frame["match"] for frame in standing} == {frame.match for frame in server.simulation.board()}
        frames = await reader.hear_for(30)
        assert len({frame["match"] for frame in frames}) >= 12
        assert frames[-1]["at"] <= trio.current_time() * 1000
        newest = {frame["match"]: frame["sequence"] for frame in standing}
        for frame in frames:
            assert frame["sequence"] == newest.get(frame["match"], 0) + 1, "a reader that keeps up misses nothing"
            newest[frame["match"]] = frame["sequence"]


async def test_one_match_is_one_match(autojump_clock):
    """Who names matches gets those alone, from how they stand; and nothing more when it has unsubscribed."""
    async with open_feed() as (server, connect):
        wanted = server.simulation.board()[3].match
        reader = await connect()
        await reader.say({"subscribe": [wanted]})
        assert await reader.hear() == {"subscribed": [wanted]}
        frames = await reader.hear_for(20)
        assert len(frames) > 5
        assert {frame["match"] for frame in frames} == {wanted}
        await reader.say({"unsubscribe": [wanted]})
        while await reader.hear() != {"unsubscribed": [wanted]}:
            pass  # a frame that was on its way
        assert await reader.hear_for(20) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"subscribe": "x"}', '{"shout": 1}', b"\xff", "[" * 5000])
async def test_nonsense_gets_its_reason(autojump_clock, text):
    """A message that is none is answered with why, and the connection goes on."""
    async with open_feed() as (_, connect):
        reader = await connect()
        await reader.say(text)
        assert list(await reader.hear()) == ["error"]
        await reader.say({"subscribe": []})
        assert await reader.hear() == {"subscribed": []}


async def test_a_client_names_so_many_matches_at_most(autojump_clock):
    """Topics of one client are bounded."""
    async with open_feed() as (server, connect):
        reader = await connect()
        await reader.say({"subscribe": [str(n) for n in range(1001)]})
        assert await reader.hear() == {"error": "no more than 1000 matches may be named"}
        assert not next(iter(server.clients)).topics


def test_a_slow_reader_gets_the_newest():
    """Two minutes unread cost a reader one frame a match, the newest, and cost the others nothing."""

    async def main():
        async with open_feed(pair=lockstep_stream_pair) as (server, connect):
            slow, honest = await connect(), await connect()
            for reader in (slow, honest):
                await reader.say({"subscribe": ["*"]})
            assert len(await honest.hear_for(120)) > 1000
            waiting = max(len(client.frames) for client in server.clients)
            assert 12 <= waiting <= 200
            late = await slow.hear_for(5)
            newest = max(frame["at"] for frame in late if "at" in frame)
            assert newest >= (trio.current_time() - 1) * 1000

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_client_that_goes_is_forgotten(autojump_clock):
    """However a client leaves, nothing of it stays."""
    async with open_feed() as (server, connect):
        polite, rude = await connect(), await connect()
        for reader in (polite, rude):
            await reader.say({"subscribe": ["*"]})
            await reader.hear()
        assert len(server.clients) == 2
        with trio.move_on_after(5):
            await polite.websocket.aclose()
        await trio.aclose_forcefully(rude.websocket._stream)
        await trio.sleep(5)
        assert not server.clients


async def test_the_feed_is_full_at_some_point(autojump_clock):
    """The client beyond the last place is refused in the handshake."""
    with pytest.RaisesGroup(trio_websocket.ConnectionRejected, flatten_subgroups=True):
        async with open_feed() as (server, connect):
            for _ in range(CLIENTS):
                await connect()
            assert len(server.clients) == CLIENTS
            await connect()


async def test_it_is_served_on_loopback():
    """`serve_feed` reports a URL that a WebSocket client can open, and ends with its scope."""
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_feed, Simulation(1), lambda: 0)
        assert url.startswith("ws://127.0.0.1:")
        with trio.fail_after(60):
            async with trio_websocket.open_websocket_url(url) as websocket:
                await websocket.send_message('{"subscribe": ["*"]}')
                assert json.loads(await websocket.get_message()) == {"subscribed": ["*"]}
                assert json.loads(await websocket.get_message())["sequence"] == 1
        nursery.cancel_scope.cancel()
