"""Times at their real settings, on a clock that jumps: the edge on an ASGI host in memory."""

import json
import random
from contextlib import asynccontextmanager
from itertools import pairwise

import attrs
import pytest
import trio
from edge_service import KINDS, Room

from trio_swarm.edge.app import Edge
from trio_swarm.journal.event import Draft
from trio_swarm.runtime import open_swarm
from trio_swarm.settings import Settings


@attrs.define
class Host:
    """One connection of a host that is not ours. `stuck`: it blocks in `send`, as when its client does not read."""

    tell: trio.MemorySendChannel
    heard: trio.MemoryReceiveChannel
    sent: list = attrs.Factory(list)
    stuck: bool = False
    over: trio.Event = attrs.Factory(trio.Event)
    began: float = attrs.Factory(trio.current_time)

    async def send(self, message):
        if self.stuck:
            await trio.sleep_forever()
        self.sent.append((trio.current_time() - self.began, message))
        if message["type"] == "http.response.body" and not message["more_body"]:
            await self.tell.send({"type": "http.disconnect"})

    async def text(self, **message):
        await self.tell.send({"type": "websocket.receive", "text": json.dumps(message)})
        await trio.testing.wait_all_tasks_blocked()

    @property
    def bodies(self):
        return [(at, m["body"]) for at, m in self.sent if m["type"] == "http.response.body"]

    @property
    def texts(self):
        return [(at, json.loads(m["text"])) for at, m in self.sent if m["type"] == "websocket.send"]

    @property
    def closes(self):
        return [(at, m["code"]) for at, m in self.sent if m["type"] == "websocket.close"]


@attrs.define
class World:
    swarm: object
    edge: Edge
    nursery: trio.Nursery
    edge_scope: trio.CancelScope

    async def connect(self, path, query=b"", kind="http"):
        tell, heard = trio.open_memory_channel(100)
        host = Host(tell, heard)
        scope = {
            "type": kind, "http_version": "1.1", "method": "GET", "path": path, "raw_path": path.encode(),
            "query_string": query, "headers": [], "scheme": "http" if kind == "http" else "ws",
        }  # fmt: skip

        async def run():
            await self.edge(scope, heard.receive, host.send)
            host.over.set()

        first = {"type": "http.request", "body": b"", "more_body": False}
        await tell.send(first if kind == "http" else {"type": "websocket.connect"})
        self.nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        return host

    async def publish(self, data=b"1"):
        await self.swarm.get(Room, "a").publish([Draft(data)])
        await trio.testing.wait_all_tasks_blocked()


@attrs.define
class _Started:
    status: object
    value: object

    def started(self, _=None):
        self.status.started(self.value)


@asynccontextmanager
async def open_world():
    async with open_swarm(KINDS, rng=random.Random(1)) as swarm, trio.open_nursery() as nursery:
        edge = Edge(swarm.directory, Settings(), rng=random.Random(1))

        async def run(task_status):
            with trio.CancelScope() as scope:
                await edge.run(task_status=_Started(task_status, scope))

        scope = await nursery.start(run)
        yield World(swarm, edge, nursery, scope)
        nursery.cancel_scope.cancel()


async def test_a_silent_stream_has_a_heartbeat_every_ten_seconds(autojump_clock):
    """The first between 10 and 20 s after the last event; none while events flow."""
    async with open_world() as world:
        host = await world.connect("/v1/room/a/events")
        await trio.sleep(59)
        beats = [at for at, body in host.bodies if b"data" not in body]
        assert len(beats) in {4, 5}
        assert beats[0] < 20.1
        assert {10} == {round(b - a) for a, b in pairwise(beats)}
        for _ in range(30):
            await world.publish()
            await trio.sleep(2)
        assert len([1 for _, body in host.bodies if b"data" not in body]) <= len(beats) + 1


async def test_a_websocket_that_says_nothing_is_dead_after_thirty_seconds(autojump_clock):
    """It is pinged every 10 s; the close comes within an eighth of the limit."""
    async with open_world() as world:
        host = await world.connect("/v1/ws", kind="websocket")
        await trio.sleep(100)
        assert [{"type": "ping"}] * 3 == [message for _, message in host.texts][:3]
        [(at, code)] = host.closes
        assert 4001 == code
        assert 30 <= at <= 34
        assert len(world.edge.clients) == 0
        assert {"silent": 1} == world.edge.statistics().ended


async def test_a_websocket_that_answers_lives(autojump_clock):
    """An hour of pongs."""
    async with open_world() as world:
        host = await world.connect("/v1/ws", kind="websocket")
        for _ in range(180):
            await trio.sleep(20)
            await host.text(type="pong")
        assert [] == host.closes


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_client_that_does_not_read_is_stalled_after_thirty_seconds(kind, autojump_clock):
    """The application ends its task although the host's `send` never returns."""
    async with open_world() as world:
        if kind == "http":
            host = await world.connect("/v1/room/a/events")
        else:
            host = await world.connect("/v1/ws", kind=kind)
            await host.text(type="subscribe", data={"stream": "room/a"})
        host.stuck = True
        began = trio.current_time()
        await world.publish()
        await host.over.wait()
        assert 30 <= trio.current_time() - began <= 35
        assert {"stalled": 1} == world.edge.statistics().ended
        assert world.swarm.streams.get("room/a").subscribers == 0


async def test_a_drain_is_over_in_time_although_a_host_never_returns(autojump_clock):
    """Those who read are told; those who do not are ended."""
    async with open_world() as world:
        hosts = [await world.connect("/v1/room/a/events") for _ in range(4)]
        sockets = [await world.connect("/v1/ws", kind="websocket") for _ in range(4)]
        for socket in sockets:
            await socket.text(type="subscribe", data={"stream": "room/a"})
        for host in (hosts[0], sockets[0]):
            host.stuck = True
        await world.publish()
        began = trio.current_time()
        await world.edge.drain()
        assert trio.current_time() - began < 5
        for host in hosts[1:]:
            retry, end = host.sent[-2][1], host.sent[-1][1]
            assert 1_000 <= int(retry["body"].removeprefix(b"retry: ")) <= 10_000
            assert (b"", False) == (end["body"], end["more_body"])
        assert [1001] * 3 == [code for socket in sockets for _, code in socket.closes]
        assert len(world.edge.clients) == 0


async def test_a_message_is_remembered_for_five_seconds(autojump_clock):
    """Then it is a new one."""
    async with open_world() as world:
        host = await world.connect("/v1/ws", kind="websocket")
        await host.text(type="subscribe", data={"stream": "room/a"})
        call = {"type": "call", "messageId": "1", "data": {"stream": "room/a", "method": "double", "arguments": [1]}}
        for wait in (0, 4.9, 0.2, 0):
            await trio.sleep(wait)
            await host.text(**call)
        answers = [message for _, message in host.texts if message["type"] == "result"]
        assert 4 == len(answers)
        assert await world.swarm.get(Room, "a").count() == 2


async def test_ten_bad_messages_are_too_many_only_in_one_minute(autojump_clock):
    """Nine, then nine more a minute later, and one."""
    async with open_world() as world:
        host = await world.connect("/v1/ws", kind="websocket")
        for _ in range(2):
            for _ in range(9):
                await host.text(type="nonsense")
            for _ in range(4):
                await trio.sleep(15.1)
                await host.text(type="pong")
        assert [] == host.closes
        for _ in range(10):
            await host.text(type="nonsense")
        await trio.sleep(1)
        assert [4500] == [code for _, code in host.closes]


async def test_a_client_that_answers_no_close_is_not_waited_for(autojump_clock):
    """It has `closing_s` for its half of the closing handshake."""
    async with open_world() as world:
        host = await world.connect("/v1/ws", kind="websocket")
        await host.tell.send({"type": "websocket.receive", "bytes": b"x", "text": None})
        began = trio.current_time()
        await host.over.wait()
        assert [1003] == [code for _, code in host.closes]
        assert trio.current_time() - began == 2.0


async def test_the_end_of_the_edge_ends_every_client(autojump_clock):
    """Cancelling `Edge.run` aborts whoever is left, and no new stream is taken."""
    async with open_world() as world:
        hosts = [
            await world.connect("/v1/room/a/events"),
            await world.connect("/v1/ws", kind="websocket"),
        ]
        world.edge_scope.cancel()
        await trio.sleep(0.1)
        assert [True, True] == [host.over.is_set() for host in hosts]
        assert (len(world.edge.clients), world.swarm.streams.get("room/a").subscribers) == (0, 0)
        late = await world.connect("/v1/room/a/events")
        assert late.sent[0][1]["status"] == 503
