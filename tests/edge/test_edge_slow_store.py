"""The edge over a store that takes its time: nothing leaves before the commit, and of a failed one there is nothing."""

import json

import pytest
import trio
from edge_service import open_service, until

from trio_swarm.objects.durable import DurableObject, exposed
from trio_swarm.testing.slow_storage import SlowStorage

A_MOMENT_S = 0.1  # in which nothing arrives; what would arrive has a socket to go through, so no clock can be turned


class Account(DurableObject):
    publishable = True

    async def start(self):
        self.paid = await self.storage.get("paid", [])

    @exposed
    async def pay(self, amount):
        self.paid = [*self.paid, amount]
        self.storage.put("paid", self.paid)
        self.publish("", amount)
        return self.paid


@pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])
async def test_nothing_leaves_before_the_commit(foreign):
    """Over HTTP, SSE and WebSocket all waits; after a failed one callers get an error, and readers nothing."""
    storage = SlowStorage()
    answers = {}
    async with (
        open_service(kinds=(Account,), storage=storage, foreign=foreign) as service,
        service.ws() as caller,
        service.ws() as reader,
        service.sse("/v1/account/a/events") as events,
        trio.open_nursery() as nursery,
    ):

        async def post(name, path, body):
            answers[name] = await service.ask("POST", f"/v1/account/a/{path}", body, content_type="application/json")

        async def call(name, **message):
            answers[name] = await caller.ask(**message)

        async def read(into, next_):
            while True:
                into.append(await next_())

        async def asked(count):
            """Have so many callers wait for so many commits."""
            nursery.start_soon(post, f"call {count}", "call/pay", b"[%d]" % count)
            await until(lambda: len(storage.waiting) == 1)
            draft = {"data": count + 1, "durable": True}
            nursery.start_soon(post, f"publish {count}", "publish", json.dumps(draft).encode())
            await until(lambda: len(storage.waiting) == 2)
            data = {"stream": "account/a", "method": "pay", "arguments": [count + 2]}
            nursery.start_soon(lambda: call(f"ws {count}", type="call", messageId=str(count), data=data))
            await until(lambda: len(storage.waiting) == 3)
            await trio.sleep(A_MOMENT_S)

        hello = await events.next()
        assert "hello" == hello.event
        await reader.subscribe("account/a")
        sent, framed = [], []
        nursery.start_soon(read, sent, events.next)
        nursery.start_soon(read, framed, reader.next)
        storage.holding = True
        await asked(1)
        assert ({}, [], []) == (answers, sent, framed)
        storage.release(1)
        await until(lambda: len(sent) == len(framed) == len(answers) == 1)
        storage.release(1)
        await until(lambda: len(answers) == 2)
        assert {"call 1", "publish 1"} == answers.keys()
        storage.release(1)
        await until(lambda: len(sent) == len(framed) == len(answers) == 3)
        assert ({"result": [1]}, 1) == (answers["call 1"].json, answers["publish 1"].json["count"])
        assert ("result", [1, 3]) == (answers["ws 1"]["type"], answers["ws 1"]["data"]["result"])
        assert [1, 2, 3] == [event.data for event in sent] == [message["data"] for message in framed]

        await asked(11)
        storage.fail()
        await until(lambda: len(answers) == 6)
        storage.holding = False
        storage.release()
        assert (503, 503) == (answers["call 11"].status, answers["publish 11"].status)
        assert "error" == answers["ws 11"]["type"]
        await until(lambda: service.swarm.get(Account, "a").statistics().state == "running")
        await post("after", "call/pay", b"[99]")
        await until(lambda: len(sent) == len(framed) == 4)
        assert {"result": [1, 3, 99]} == answers["after"].json
        assert [1, 2, 3, 99] == [event.data for event in sent] == [message["data"] for message in framed]
        nursery.cancel_scope.cancel()
