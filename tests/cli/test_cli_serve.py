"""`trio-swarm serve` as a process: it says where it is, serves, and ends when it is told to."""

import httpx
import trio

from trio_swarm.demo import Simulation, serve_feed
from trio_swarm.health.collector import THRESHOLDS

GAME = """
import gc

from trio_swarm.objects.durable import DurableObject, exposed

class Game(DurableObject):
    @exposed
    async def collector(self):
        return [*gc.get_threshold(), len(gc.callbacks)]

    async def start(self):
        self.goals = 0

    @exposed
    async def goal(self):
        self.goals += 1
        self.publish("score", self.goals)
        return self.goals
"""


async def test_objects_of_a_module(child, read_events, tmp_path):
    """`--objects` finds a module in the working directory; its object is called, streamed, and all ends with Ctrl-C.

    The collector of the process is set for serving.
    """
    (tmp_path / "arena.py").write_text(GAME)
    async with child("serve", "--bind", "127.0.0.1:0", "--objects", "arena", cwd=tmp_path) as service:
        assert service.lines[0] == f"trio-swarm serves on {service.url}"
        async with httpx.AsyncClient(base_url=service.url, timeout=10) as client:
            for goals in (1, 2):
                answer = await client.post("/v1/game/final/call/goal", json=[])
                assert answer.json() == {"result": goals}
            answer = await client.post("/v1/game/final/call/collector")
            assert answer.json() == {"result": [*THRESHOLDS, 1]}
            assert (await client.get("/v1/match/final/history")).status_code == 404
        hello, one, two = await read_events(f"{service.url}/v1/game/final/events?since=0-0", 3)
        assert (hello.type, one.data, two.data) == ("hello", "1", "2")
        assert await service.end() == 0
        assert not [line for line in service.lines if "Traceback" in line]


async def test_a_feed_from_a_file(child, read_events, tmp_path):
    """`--config` describes a feed, and the service's hub serves its frames."""
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_feed, Simulation(4), lambda: 0)
        (tmp_path / "settings.toml").write_text(f"""
            bind = "127.0.0.1:0"
            [[feed]]
            name = "football"
            url = "{url}"
            topics = ["*"]
            subscribe = '{{"subscribe": {{topics}}}}'
            topic_path = "match"
            skip = ["subscribed"]
        """)
        async with child("serve", "--config", tmp_path / "settings.toml") as service:
            events = await read_events(f"{service.url}/v1/hub/football/events?since=0-0", 10)
            assert sum('"match"' in event.data for event in events) >= 8
            assert await service.end() == 0
        nursery.cancel_scope.cancel()


async def test_ctrl_c_with_readers(child, read_events):
    """Readers see their stream end in order, and the service is gone."""
    async with child("serve", "--bind", "127.0.0.1:0") as service, trio.open_nursery() as nursery:
        heard = []

        async def read():
            heard.append(await read_events(f"{service.url}/v1/channel/lobby/events", 1000))

        for _ in range(3):
            nursery.start_soon(read)
        await trio.sleep(0.3)
        assert await service.end() == 0
    assert [events[0].type for events in heard] == ["hello"] * 3
