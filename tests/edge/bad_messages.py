"""What is said for each row of the table of messages: several variants a row, to be treated alike."""

import json

import trio
from bad_bodies import DEEP, LITERALS, NAMES, NUMBERS, SURROGATES
from wrong_input import say, text

ROOM = "room/a"


def message(type_, data=None, **fields):
    """One message as JSON; `data` where there is some."""
    return json.dumps({"type": type_, **({} if data is None else {"data": data}), **fields})


def subscribe(stream=ROOM, **data):
    return text(message("subscribe", {"stream": stream, **data}))


def publish(field, raw):
    """A publish of which one field is given as it is."""
    fields = {"stream": b'"room/a"', "data": b"1", field: raw}
    return text(b'{"type":"publish","data":{%b}}' % b",".join(b'"%b":%b' % (k.encode(), v) for k, v in fields.items()))


def call(method, arguments):
    return text(message("call", {"stream": ROOM, "method": method, "arguments": arguments}))


async def many_subscribes(service):
    """On one connection, one after the other without waiting; and from 50 at the same time, who share one snapshot."""
    board = service.swarm.get("board", "one")
    await board.put("x")
    found = {await say(service, text(*[message("subscribe", {"stream": "board/one"})] * 50))}

    async def one():
        found.add(await say(service, subscribe("board/one")))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(one)
    [outcome] = found
    return outcome


async def repeated(service):
    """The method runs once."""
    before = await service.room().count()
    twice = message("call", {"stream": ROOM, "method": "double", "arguments": [1]}, messageId="again")
    outcome = await say(service, text(twice, twice))
    assert await service.room().count() == before + 1
    return outcome


MESSAGES = {
    "a text that is no JSON, or empty": [
        text(each)
        for each in (
            b"",
            b" ",
            b"{",
            b"nonsense",
            b'{"type":"ping"} x',
            b"{'type':'ping'}",
            b"\xef\xbb\xbf{}",
            b'{"type":"ping",}',
            b'{"type":"pi\nng"}',
            b"\x00",
        )
    ],
    "in a text: `NaN`, infinities, a nesting of 50,000, a number beyond a double": [
        *(publish("data", raw) for raw in (*LITERALS, *NUMBERS, *DEEP[2:])),
        publish("data", DEEP[1][25_000:-25_000]),
        publish("data", b"[" * 100_000),
        text(b'{"type":"ping","data":%b%b}' % (b"[" * 50_000, b"]" * 50_000)),
        text(b'{"type":"call","data":{"stream":"room/a","method":"double","arguments":%b}}' % DEEP[2]),
        text(b'{"type":"ping","timestamp":1e999}'),
    ],
    "in a text: half of a surrogate pair, in names, data or `messageId`": [
        *(publish("data", half) for half in SURROGATES),
        *(publish(field, b'"\\ud800"') for field in ("stream", "topic", "type", "key", "messageId", "other")),
        text(b'{"type":"ping","messageId":"\\udc00"}'),
        text(b'{"type":"sing","messageId":"\\udc00"}'),
        text(b'{"type":"\\ud800"}'),
        text(b'{"type":"call","data":{"stream":"room/a","method":"\\ud800"}}'),
        text(b'{"type":"call","data":{"stream":"room/a","method":"double","arguments":["\\ud800"]}}'),
    ],
    "an unknown type": [
        text(message(type_))
        for type_ in ("sing", "", "Ping", "event", "subscribed", "ping\n", "x" * 90_000, "__class__")
    ],
    "a field of a message missing or of the wrong type, or no object at all": [
        text(each)
        for each in (
            b"[]",
            b"null",
            b"1",
            b'"ping"',
            b"{}",
            b'{"type":1}',
            b'{"type":["ping"]}',
            b'{"type":"subscribe"}',
            b'{"type":"subscribe","data":[]}',
            b'{"type":"subscribe","data":{}}',
            b'{"type":"subscribe","data":{"stream":1}}',
            b'{"type":"subscribe","data":{"stream":"room/a","topics":"x"}}',
            b'{"type":"subscribe","data":{"stream":"room/a","since":5}}',
            b'{"type":"batch_subscribe","data":{}}',
            b'{"type":"batch_subscribe","data":{"subscriptions":[]}}',
            b'{"type":"publish","data":{"stream":"room/a"}}',
            b'{"type":"call","data":{"stream":"room/a","method":1}}',
            b'{"type":"call","data":{"stream":"room/a","method":"double","arguments":1}}',
        )
    ],
    "a message with a `messageId` that is empty, no text, or above 200 characters": [
        text(message("ping", messageId=each)) for each in ("", 5, "x" * 201, ["a"], True)
    ],
    "a key of a message twice": [
        text(b'{"type":"ping","messageId":"a","messageId":"b"}'),
        text(b'{"type":"ping","timestamp":1,"timestamp":2}'),
    ],
    "a stream without a kind, an id of `.`, `..` or nothing, or with a `/`": [
        subscribe(stream)
        for stream in (
            "",
            "room",
            "room/",
            "/a",
            "room/.",
            "room/..",
            "room/a/b",
            "../room",
            "Room/a",
            "room/" + "x" * 201,
        )
    ],
    "CR, LF or NUL in a stream, topic, type or key": [
        *(publish(field, b'"%b"' % name) for field in ("topic", "type", "key") for name in NAMES),
        *(publish("stream", b'"room/%b"' % name) for name in NAMES),
        subscribe(topics=["a\nb"]),
        subscribe(topics=["a", "\0"]),
        subscribe(topics=["a,b"]),
        subscribe("room/a\rb"),
    ],
    "a `subscribe` with 10,000 topics": [subscribe(topics=[str(n) for n in range(10_000)])],
    "a `subscribe` with an empty list of topics": [subscribe(topics=[])],
    "a `subscribe` with a malformed `since`": [
        subscribe(since=since)
        for since in ("", "x", "1", "1-2-3", "-1-0", "9" * 5_000 + "-0", "1-0\n", "1-0\0", "\uff11-0", "0x1-0")
    ],
    "a `subscribe` with a `since` far in the future": [
        subscribe(since="9999999999999-0"),
        subscribe(since=f"{2**64 - 1}-0"),
    ],
    "a `batch_subscribe` with more than 1,000 entries": [
        text(message("batch_subscribe", {"subscriptions": [{"stream": ROOM}] * 1_001})),
        text(message("batch_unsubscribe", {"subscriptions": [{"stream": ROOM}] * 4_000})),
    ],
    "a `batch_subscribe` with 10,000 entries, which is above 100 KiB": [
        text(message("batch_subscribe", {"subscriptions": [{"stream": ROOM}] * 10_000})),
    ],
    "a stream more than 100": [text(*(message("subscribe", {"stream": f"room/{n}"}) for n in range(101)))],
    "50 subscribes to one stream at once, on one connection and on 50": [many_subscribes],
    "an `unsubscribe` from what is not subscribed to": [text(message("unsubscribe", {"stream": "room/never"}))],
    "a message to an unknown kind": [
        subscribe("nothing/a"),
        publish("stream", b'"nothing/a"'),
        text(message("call", {"stream": "nothing/a", "method": "x"})),
    ],
    "a message to an id that its kind does not have": [subscribe("known/two"), subscribe("known/two", since="0-0")],
    "a `publish` into a kind that takes none": [publish("stream", b'"board/a"')],
    "a `call` of an unknown or hidden method": [
        call(method, [])
        for method in ("nothing", "inside", "start", "__init__", "publish", "", "double\n", "x" * 50_000)
    ],
    "a `call` with too many arguments, too few, unknown names or wrong types": [
        call("double", arguments)
        for arguments in (
            [],
            [1, 2],
            {"x": 1},
            {"number": 1, "x": 1},
            ["1"],
            [None],
            [1.5],
            [[]],
            {"number": 1, "x" * 50_000: 1},
            [1] * 30_000,
        )
    ],
    "a message with a `messageId` again": [repeated],
    "the tenth message in a minute that cannot be read": [
        text(*[b"nonsense"] * 10),
        text(*[message("sing")] * 10),
    ],
    "more than 1,000 requests while one is under way": [
        text(
            message("call", {"stream": "room/slow", "method": "wait", "arguments": [5]}),
            *[message("call", {"stream": "room/slow", "method": "count"})] * 1_001,
        ),
    ],
}
