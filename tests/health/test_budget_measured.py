"""The budget against what is measured: each part filled alone in a process of its own, and all of them together.

What is measured is the growth of the process's own memory, garbage given back before both readings.
"""

import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from trio_swarm.health import budget
from trio_swarm.health.budget import make_budget
from trio_swarm.settings import KIB, REPEAT_ENTRIES, REPEATS
from trio_swarm.upstream.serving import serve_stream

sys.path.insert(0, str(Path(__file__).parent))
import budget_service

SERVICE = Path(budget_service.__file__)
SETTINGS = budget_service.small_settings()
PATIENCE_S = 60.0
FACTOR = 1.5
EVENT_BYTES = SETTINGS.limits.event_bytes
JSON = "Content-Type: application/json"


def rows(*parts):
    """Bytes of these rows of the budget."""
    found = {row.part: row.bytes for row in make_budget(SETTINGS, [None]).rows}
    return sum(found[part] for part in parts)


class Measured:
    """The process: what to do, and what it costs."""

    def __init__(self, process, port):
        self.process = process
        self.port = port
        self.base = 0
        self.clients = []

    def do(self, what, **more):
        self.process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def measure(self):
        return self.do("measure")["bytes"]

    def growth(self):
        """When it has settled: tasks that are about to end hold what they had."""
        last, now = 0, self.measure()
        while abs(now - last) > now // 100:
            time.sleep(0.3)
            last, now = now, self.measure()
        return now - self.base

    def statistics(self):
        return self.do("measure")["statistics"]

    def until(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition(self.statistics()):
            assert time.monotonic() < deadline, self.statistics()
            time.sleep(0.1)

    # Clients

    def connect(self, receive_bytes=None):
        client = socket.socket()
        if receive_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(PATIENCE_S)
        client.connect(("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    def head(self, client, method, path, body=b"", *fields):
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *fields]
        client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def websocket(self):
        client = self.connect()
        self.head(
            client, "GET", "/v1/ws", b"", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )  # fmt: skip
        assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        return client

    def say(self, client, **message):
        client.sendall(frame(json.dumps(message).encode()))

    def read_events(self, stream, topics, **more):
        """An SSE client that takes its greeting, and then nothing more."""
        client = self.connect(**more)
        self.head(client, "GET", f"/v1/{stream}/events?topics={','.join(topics)}")
        read_until(client, b"hello")
        return client


def frame(payload):
    """A text frame as a client sends it, under a mask of zeros."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return b"\x81" + length + bytes(4) + payload


def read_until(client, wanted):
    received = b""
    while wanted not in received:
        more = client.recv(65536)
        assert more, received
        received += more
    return received


@contextmanager
def measured():
    """A service with its base measured, and a feed that floods whoever reads it."""
    with ExitStack() as stack:
        feed = stack.enter_context(flooding_feed())
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", str(SERVICE), feed],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        stack.callback(process.kill)
        running = Measured(process, int(process.stdout.readline()))
        # What the first of its kind brings (imports, caches) is no growth.
        with running.connect() as http, running.websocket():
            running.head(http, "POST", "/v1/room/first/call/echo", b'["x"]', JSON, "Content-Length: 5")
            read_until(http, b"result")
            running.do("publish", stream="channel/first", topics=["x"], size=100)
        running.measure()
        running.base = running.measure()
        try:
            yield running
        finally:
            for client in running.clients:
                client.close()


@contextmanager
def flooding_feed():
    """A feed of frames that just fill a lane, then of the largest ones, without end."""
    small = json.dumps({"pad": "x" * (63 * KIB)})
    large = json.dumps({"pad": "x" * (SETTINGS.limits.upstream_frame_bytes - 100)})
    ready = threading.Event()
    address = []

    async def flood(connection):
        for _ in range(SETTINGS.objects.feed_lane + 2):
            await connection.send(small)
        while True:
            await connection.send(large)

    async def main():
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, lambda stream: serve_stream(stream, flood), 0, host="127.0.0.1")
            listeners = await nursery.start(serve)
            port = listeners[0].socket.getsockname()[1]
            address.extend([f"ws://127.0.0.1:{port}/", trio.lowlevel.current_trio_token(), nursery.cancel_scope])
            ready.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    ready.wait()
    try:
        yield address[0]
    finally:
        address[1].run_sync_soon(address[2].cancel)
        thread.join()


# Each fills one part, and says what the budget has for it.


def fill_connections(running):
    """Idle WebSockets, each with a stream."""
    clients = [running.websocket() for _ in range(SETTINGS.limits.connections)]
    for client in clients:
        running.say(client, type="subscribe", data={"stream": "room/lobby"})
    for client in clients:
        read_until(client, b"subscribed")
    return SETTINGS.limits.connections * budget.DIRECT_BYTES


def fill_slow_readers(running, count=SETTINGS.limits.connections):
    """Streams whose clients take nothing, each at an event of its own, and each with as many topics as there may be."""
    others = 2 * SETTINGS.limits.objects_per_kind + 100  # readers of live objects
    each = (SETTINGS.limits.subscribed_topics - others) // count
    names = [[f"topic {number:05} {n:06}".replace(" ", "-") for n in range(each)] for number in range(count)]
    streams = [f"room/number-{number % 40}" for number in range(count)]
    for stream, topics in zip(streams, names, strict=True):
        running.read_events(stream, topics, receive_bytes=4096)
    for _ in range(5):
        for stream, topics in zip(streams, names, strict=True):
            running.do("publish", stream=stream, topics=topics[:1], size=EVENT_BYTES - 100)
    running.until(lambda told: told["clients"]["blocked"] == count)
    journals = running.statistics()["streams"]["live_bytes"]  # of what was published: a part of its own
    wanted = rows("what slow clients have not taken", "topics that readers name", "ranges kept for laggards")
    return wanted + count * budget.DIRECT_BYTES + journals + 40 * budget.OBJECT_BYTES


def fill_requests(running):
    """Half bodies, calls with decoded arguments, calls with long texts, and messages in line: a quarter each."""
    share = SETTINGS.limits.bodies_bytes // 4
    body = b"[" + b"[]," * 10_000 + b"[]]"
    heavy = 2 * len(body) + 110 * 10_000
    for _ in range(share // heavy):
        running.head(running.connect(), "POST", "/v1/room/held/call/hold", body, JSON, f"Content-Length: {len(body)}")
    body = json.dumps(["x" * (900 * KIB)]).encode()
    for _ in range(share // (2 * len(body))):
        running.head(running.connect(), "POST", "/v1/room/held/call/hold", body, JSON, f"Content-Length: {len(body)}")
    half = b"x" * (900 * KIB)
    for _ in range(share // len(half)):
        running.head(running.connect(), "POST", "/v1/room/held/call/hold", half, JSON, f"Content-Length: {1 << 20}")
    for _ in range(share // (2 * 900 * KIB)):
        client = running.websocket()
        for n in range(9):
            message = {"stream": "room/held", "method": "hold", "arguments": ["x" * (95 * KIB)]}
            running.say(client, type="call", messageId=str(n), data=message)
    running.until(lambda told: told["requests"]["held"] > 0.85 * SETTINGS.limits.bodies_bytes)
    return rows("requests under way") + len(running.clients) * budget.DIRECT_BYTES


def fill_answers_on_their_way(running):
    """Histories of clients that take nothing."""
    running.do("publish", stream="room/long", topics=["topic"], size=100_000, count=20)
    share = SETTINGS.limits.answers_bytes
    before = len(running.clients)
    while running.statistics()["answers"]["held"] < 0.85 * share:
        running.head(running.connect(receive_bytes=4096), "GET", "/v1/room/long/history?since=0-0&limit=1000")
        time.sleep(0.1)
    journal = 20 * 100_000
    return rows("answers on their way") + (len(running.clients) - before) * budget.DIRECT_BYTES + journal


def fill_answers(running):
    """As many answers as are kept, of the largest size that is."""
    clients = [running.websocket() for _ in range(10)]
    for n in range(REPEAT_ENTRIES // len(clients)):
        for client in clients:
            message = {"stream": "room/lobby", "method": "echo", "arguments": ["x" * 3_900 + f"{n:08}"]}
            running.say(client, type="call", messageId=f"{n:08}", data=message)
        for client in clients:
            read_until(client, f'{n:08}"}}}}'.encode())
    for client in clients:
        client.close()
    return rows("answers kept for repeats")


def fill_publications(running):
    """As many publications as are kept for whoever repeats one, with the longest ids."""
    running.do("repeat", stream="room/lobby", count=REPEATS)
    return rows("publications kept for repeats")


def fill_live_journals(running):
    """Small events, each of its own topic, in many objects."""
    streams = [f"room/journal-{n}" for n in range(40)]
    running.do("wake", streams=streams)
    for stream in streams:
        running.do("publish", stream=stream, topics=[f"topic-{stream[-2:]}-{n:010}" for n in range(600)], size=100)
    return rows("journals of live objects") + len(streams) * budget.OBJECT_BYTES


def fill_idle_journals(running):
    """Objects that stop, each with a history."""
    for n in range(100):
        running.do("publish", stream=f"channel/idle-{n}", topics=["topic"], size=500, count=200)
    running.until(lambda told: told["directory"]["objects"]["channel"] == {})
    time.sleep(2.5)  # the last of their tasks end
    return rows("journals of objects that stopped")


def fill_objects(running, count=SETTINGS.limits.objects_per_kind - 10):
    """As many objects as a kind may have, each with a reader."""
    running.do("wake", streams=[f"room/live-{n}" for n in range(count)])
    return count * budget.OBJECT_BYTES


def fill_store(running):
    """Pairs of some hundred bytes."""
    for n in range(4):
        running.do("keep", id=f"keeper-{n}", count=4_300, size=500)
    return rows("the store")


def fill_feed(running):
    """A feed whose object does not come back."""
    running.do("wake", streams=["room/feed"])
    running.until(lambda told: sum(each["mailbox"]["feed"] for each in told["objects"]) > SETTINGS.objects.feed_lane)
    time.sleep(1.0)  # the queue behind the lane has no statistics
    return rows("feeds' frames", "feeds' messages in lanes")


FILLS = [
    fill_connections, fill_slow_readers, fill_requests, fill_answers, fill_answers_on_their_way, fill_publications,
    fill_live_journals, fill_idle_journals, fill_objects, fill_store, fill_feed,
]  # fmt: skip


@pytest.mark.parametrize("fill", FILLS, ids=lambda fill: fill.__name__.removeprefix("fill_"))
def test_a_part_filled_alone(fill):
    """The budget's figure for a part is at least what it costs, and at most half as much again."""
    with measured() as running:
        wanted = fill(running)
        check(fill.__name__, wanted, running.growth())


NOT_FILLED = {
    "the program",  # it is the base
    "ranges of one pass",  # and gone with it
    "viewers",  # a line on its way, likewise
    "feeds' large events on their way",  # this feed's object never publishes what it is given
    "numbers of feeds' topics",
    "commits refused",
    "prefixes of events",
}


def test_all_together():
    """With all these parts full at the same time, their sum is near what it costs."""
    with measured() as running:
        fill_publications(running)
        fill_answers(running)
        fill_idle_journals(running)
        fill_store(running)
        fill_requests(running)
        fill_answers_on_their_way(running)
        fill_live_journals(running)
        fill_feed(running)
        fill_slow_readers(running, SETTINGS.limits.connections - 10)
        running.do("wake", streams=[f"channel/live-{n}" for n in range(SETTINGS.limits.objects_per_kind)])
        fill_objects(running, 300 - 90)
        counted = make_budget(SETTINGS, [None])
        filled = [row for row in counted.rows if row.part not in NOT_FILLED]
        assert len(filled) == len(counted.rows) - len(NOT_FILLED)
        check("all together", sum(row.bytes for row in filled), running.growth())


def check(what, wanted, grown):
    ratio = wanted / grown
    print(f"{what}: budget {wanted / 1e6:.1f} MB, measured {grown / 1e6:.1f} MB, ratio {ratio:.2f}")
    assert 1 / FACTOR <= ratio <= FACTOR, f"{what}: the budget says {wanted:,} and it costs {grown:,}"
