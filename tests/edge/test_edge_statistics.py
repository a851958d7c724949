"""What the edge's clients are given is counted, and those that take nothing are found."""

import json

from edge_service import open_service, until

from trio_swarm.edge.slowest import find_slowest
from trio_swarm.settings import Settings


async def test_deliveries_are_counted_by_event_and_byte():
    """Published events, deliveries, bytes: what clients were given, no more and no less; turns are there too."""
    async with open_service(Settings()) as service:
        before = service.swarm.gather().parts["streams"].broadcaster
        async with service.sse("/v1/room/a/events") as one, service.sse("/v1/room/a/events?topics=x") as two:
            await one.next()
            await two.next()
            await service.room().burst(0, 5)
            await service.publish({"n": 5}, topic="x")
            await one.data(6)
            await two.data(1)
            async with service.ws() as ws:
                await ws.subscribe("room/a", since="0-0")
                assert [(await ws.next())["data"]["n"] for _ in range(6)] == list(range(6))
            after = service.swarm.gather().parts["streams"].broadcaster
        assert after.published - before.published == 6
        assert after.deliveries - before.deliveries == 6 + 1 + 6
        assert 13 * 100 < after.delivered_bytes - before.delivered_bytes < 13 * 300
        told = service.swarm.gather().plain()
        json.dumps(told)
        room = next(each for each in told["objects"] if each["id"] == "a")
        assert room["turns"] == told["directory"]["turns"] == 3
        assert 0 < room["longest_s"] <= room["busy_s"]
        assert "tree" in service.swarm.tell(True)


async def test_the_slowest():
    """A client that does not read is found, with how long it has not and how far it is behind."""
    async with open_service(Settings()) as service, service.sse("/v1/room/a/events") as slow:
        await slow.next()
        async with service.sse("/v1/room/a/events") as quick:
            await quick.next()
            for _ in range(60):
                await service.publish("x" * 90_000)
                await quick.data(1)
                if service.edge.statistics().blocked:
                    break
            await service.publish(1)
            await quick.data(1)
            await until(lambda: find_slowest(service.edge.clients).behind)
            found = find_slowest(service.edge.clients)
            assert [each.streams for each in found.blocked] == [("room/a",)]
            assert found.blocked[0].client == found.behind[0].client
            assert found.behind[0].behind >= 1
            assert found.blocked[0].blocked_s >= 0
