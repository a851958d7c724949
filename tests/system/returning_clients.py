"""Clients that come back by themselves, and a publisher that does not give up, as a browser and a careful sender do."""

import re
from collections import Counter, defaultdict
from contextlib import suppress

import attrs
import msgspec
import trio
from feed_clients import Record, sse, websocket

from trio_swarm.journal.event import EventId

STREAM = "channel/room"


@attrs.define
class Returning(Record):
    """A client's whole life: what it received by its number, the gaps it was told, and when it tried to come back."""

    span: tuple[float, float] = (0.3, 2.8)  # of its own backoff, where nobody told it when to come back
    received: list[int] = attrs.Factory(list)
    times: int = 0  # it was connected
    away_since: float | None = None
    first_tries: list[float] = attrs.Factory(list)  # seconds after each goodbye
    returns: list[float] = attrs.Factory(list)  # the moments at which it was back
    goodbyes: int = 0

    def connected(self):
        self.times += 1
        self.away_since = None
        self.returns.append(trio.current_time())

    def event(self, id, data):
        super().event(id, data)
        self.received.append(int(data))


async def come_back(record, talk, port, rng):
    """Connect, read to the end, wait as told, and again, until cancelled."""
    while True:
        record.retry_s = None
        with suppress(OSError, trio.BrokenResourceError):
            await talk(record, port)
        told = record.retry_s
        if record.away_since is None:
            record.away_since = trio.current_time()
            if told is not None:
                record.goodbyes += 1
                record.first_tries.append(trio.current_time() + told)
        await trio.sleep(rng.uniform(*record.span) if told is None else told)


async def read_sse(record, port):
    since = f"?since={record.position}" if record.position else ""
    await sse(record, port, f"/v1/{STREAM}/events{since}")


async def read_websocket(record, port):
    await websocket(record, port, STREAM, since=record.position or None)


@attrs.define
class Publisher:
    """Publishes 1, 2, 3 …, each until it is acknowledged."""

    port: int
    pause_s: float
    acknowledged: dict[int, EventId] = attrs.Factory(dict)
    tries: Counter = attrs.Factory(Counter)
    refusals: Counter = attrs.Factory(Counter)

    async def run(self):
        number = 0
        stream = None
        while True:
            number += 1
            while number not in self.acknowledged:
                self.tries[number] += 1
                try:
                    stream = stream or await trio.open_tcp_stream("127.0.0.1", self.port)
                    await self._publish(stream, number)
                except (OSError, trio.BrokenResourceError, EOFError) as error:
                    self.refusals[type(error).__name__] += 1
                    if stream is not None:
                        await trio.aclose_forcefully(stream)
                    stream = None
                    await trio.sleep(0.05)
            await trio.sleep(self.pause_s)

    async def _publish(self, stream, number):
        body = msgspec.json.encode({"data": number, "messageId": f"m{number}"})
        head = f"POST /v1/{STREAM}/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        await stream.send_all(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = b""
        while not (found := re.search(rb"\r\n\r\n(\{.*\})", answer)):
            received = await stream.receive_some(4096)
            if not received:
                raise EOFError
            answer += received
        if answer.startswith(b"HTTP/1.1 200"):
            self.acknowledged[number] = EventId.parse(msgspec.json.decode(found[1])["id"])
        elif answer.startswith(b"HTTP/1.1 503"):
            self.refusals["503"] += 1
            await trio.sleep(0.02)
        else:
            raise AssertionError(answer)


async def wait_for(condition, seconds=120):
    """Look every 20 ms: what is waited for is in another process. The seconds are for a hang, not a busy machine."""
    with trio.fail_after(seconds):
        while True:
            if condition():
                return
            await trio.sleep(0.02)


def lost_by(client, acknowledged, after):
    """The acknowledged numbers above `after` that this client was not given: those lost untold, and those in a gap."""
    have = set(client.received)
    gaps = [(EventId.parse(start), EventId.parse(end)) for start, end in client.gaps]
    missing = [number for number in acknowledged if number > after and number not in have]
    told = [number for number in missing if any(start < acknowledged[number] <= end for start, end in gaps)]
    return sorted(set(missing) - set(told)), told


def most_in_a_second(moments):
    """The most of these moments that any second holds."""
    moments = sorted(moments)
    return max((sum(1 for other in moments if 0 <= other - moment < 1) for moment in moments), default=0)


def histogram(moments, start, width=0.25):
    """So many moments in each bar from `start` on."""
    bars = defaultdict(int)
    for moment in moments:
        bars[int((moment - start) / width)] += 1
    return " ".join(str(bars[index]) for index in range(max(bars, default=-1) + 1))


def make_clients(count, span):
    """As many server-sent as WebSocket clients, each with the way it talks."""
    kinds = (("sse", read_sse), ("websocket", read_websocket))
    return [
        (Returning(f"{name} {number}", None, gaps=[], span=span), talk)
        for number in range(count // 2)
        for name, talk in kinds
    ]
