"""The main job on real input: recorded feeds, replayed as live ones, to many clients, byte for byte."""

import hashlib
import json
from collections import Counter
from urllib.parse import quote

import trio
from feed_clients import Record, sse, websocket

SPEED = 4
CLIENTS = 20  # of each transport and feed; half of them on all topics, half on one

BITMEX = """
[[feed]]
name = "bitmex"
protocol = "jsonfeed"
url = "{url}"
subscribe = '{{"op":"subscribe","args":["orderBookL2:{{topic}}","quote:{{topic}}","trade:{{topic}}"]}}'
unsubscribe = '{{"op":"unsubscribe","args":["orderBookL2:{{topic}}","quote:{{topic}}","trade:{{topic}}"]}}'
topic_path = "data.0.symbol"
skip = ["info", "success", "error"]
"""


def coinbase(frame):
    message = json.loads(frame)
    return None if message["type"] in {"subscriptions", "heartbeat", "error"} else message["product_id"]


def kraken(frame):
    message = json.loads(frame)
    return message[-1] if isinstance(message, list) else None


def bitmex(frame):
    message = json.loads(frame)
    if "table" not in message:
        return None
    return message["data"][0]["symbol"] if message["data"] else ""


def expected(path, topic_of):
    """The capture's events as (topic, data), read here by plain JSON and nothing of ours."""
    lines = path.read_text().splitlines()[1:]
    frames = [entry["data"] for entry in map(json.loads, lines) if entry["dir"] == "in"]
    return [(topic, data.encode()) for data in frames if (topic := topic_of(data)) is not None]


def digest(events):
    total = hashlib.sha256()
    for data in events:
        total.update(data)
        total.update(b"\n")
    return total.hexdigest()


async def one_feed(port, feed, events):
    """40 clients of one hub; all of them have everything, or the deadline says what was missing."""
    common = [topic for topic, _ in Counter(topic for topic, _ in events).most_common(10)]
    records = []
    # Readers of all topics come first: they ask for nothing upstream, so the replay has not begun when they are there.
    for index in range(CLIENTS):
        topic = None if index < CLIENTS // 2 else common[index % len(common)]
        records += [Record(f"{feed} sse {index}", topic), Record(f"{feed} ws {index}", topic)]
    wanted = {topic: [data for of, data in events if topic in {None, of}] for topic in [None, *common]}
    async with trio.open_nursery() as nursery:
        for record in records:
            if " sse " in record.name:
                topics = "" if record.topic is None else f"&topics={quote(record.topic, safe='')}"
                nursery.start_soon(sse, record, port, f"/v1/hub/{feed}/events?since=0-0{topics}")
            else:
                nursery.start_soon(websocket, record, port, f"hub/{feed}")
        for _ in range(60 * 20):
            if all(record.count >= len(wanted[record.topic]) for record in records):
                break
            await trio.sleep(0.05)
        await trio.sleep(0.3)  # for what should not come any more
        nursery.cancel_scope.cancel()
    for record in records:
        assert not record.strange, (record.name, record.strange[:3])
        assert not record.ended, (record.name, record.ended)
        assert record.count == len(wanted[record.topic]), record.name
        assert record.out_of_order == 0, record.name
        assert record.hash.hexdigest() == digest(wanted[record.topic]), record.name


async def test_every_client_has_exactly_the_captures_events(shared, service, tmp_path):
    """Three feeds (bitmex by TOML alone) at four times their speed: each client has each event once, unchanged."""
    captures = {name: shared / "captures" / f"{name}.jsonl" for name in ("coinbase", "kraken", "bitmex")}
    events = {
        "coinbase": expected(captures["coinbase"], coinbase),
        "kraken": expected(captures["kraken"], kraken),
        "bitmex": expected(captures["bitmex"], bitmex),
    }
    assert {name: len(found) for name, found in events.items()} == {"coinbase": 9_943, "kraken": 4_279, "bitmex": 2_089}
    async with trio.open_nursery() as nursery:
        ports = {}

        async def replay(name, *, task_status):
            arguments = ("replay", captures[name], "--bind", "127.0.0.1:0", "--speed", SPEED)
            async with service(*arguments) as (_, port):
                task_status.started(port)
                await trio.sleep_forever()

        for name in captures:
            ports[name] = await nursery.start(replay, name)
        config = tmp_path / "feeds.toml"
        config.write_text(BITMEX.format(url=f"ws://127.0.0.1:{ports['bitmex']}"))
        feeds = [f"{name}={name}:ws://127.0.0.1:{ports[name]}" for name in ("coinbase", "kraken")]
        arguments = ("serve", "--bind", "127.0.0.1:0", "--config", config, "--feed", feeds[0], "--feed", feeds[1])
        async with service(*arguments) as (_, port), trio.open_nursery() as clients:
            for name, found in events.items():
                clients.start_soon(one_feed, port, name, found)
        nursery.cancel_scope.cancel()
