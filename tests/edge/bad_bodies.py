"""What is sent for each row of the table of bodies: several variants a row, to be treated alike."""

import gzip
import json

from bad_requests import JSON, KIB, NDJSON, PUBLISH, call, chunked, data, publish
from wrong_input import ask, request


async def last_key_counts(service):
    """In what the service reads; in the data it does not look."""
    await ask(service, publish(b'{"data":1,"topic":"x","data":{"a":1,"a":2},"topic":"twice"}'))
    answer = await service.ask("GET", "/v1/room/a/history?topics=twice")
    assert b'"data":{"a":1,"a":2}' in answer.content
    return await ask(service, publish(b'{"data":1,"data":2}'))


async def done_once(service):
    """The first answer, and one event."""
    name = b'{"data":1,"messageId":"once"}'
    answers = [await service.ask("POST", "/v1/room/once/publish", name, content_type="application/json") for _ in "ab"]
    assert answers[0].json == answers[1].json
    history = await service.ask("GET", "/v1/room/once/history")
    assert [1] == [event["data"] for event in history.json["events"]]
    return await ask(service, publish(name))


async def nothing_of_it(service):
    """A bad line takes the good ones with it."""
    body = b'{"data":1}\n{"data":NaN}\n{"data":3}'
    answer = await service.ask("POST", "/v1/room/lines/publish", body, content_type="application/x-ndjson")
    assert answer.json["error"]["message"].startswith("line 2: ")
    assert [] == (await service.ask("GET", "/v1/room/lines/history")).json["events"]
    return await ask(service, publish(body, media=NDJSON))


NUMBERS = (b"1e999", b"-1e309", b"9" * 400, b"[1,%b]" % (b"9" * 90_000), b'{"a":1E+400}')
DEEP = (b"[" * 100_000, b"[" * 50_000 + b"]" * 50_000, b"[" * 101 + b"]" * 101, b'{"a":' * 5_000 + b"1" + b"}" * 5_000)
LITERALS = (b"NaN", b"Infinity", b"-Infinity", b"[1,NaN]", b'{"a":-Infinity}')
SURROGATES = (b'"\\ud800"', b'"\\udc00"', b'"a\\uD800b"', b'["\\udc00\\ud800"]', b'{"\\ud800":1}')
NAMES = (b"\\r", b"\\n", b"\\u0000", b"a\\r\\nid: 1-0", b"\\u0085", b"x" * 201)

BODIES = {
    "a `Content-Length` above 1 MiB": [
        publish(b"x" * (1024 * KIB + 1)),
        call(b"x" * (2048 * KIB)),
        request(PUBLISH, JSON, b"Content-Length: 99999999999999999999"),
        request(PUBLISH, JSON, b"Expect: 100-continue", b"Content-Length: 9999999"),
    ],
    "a chunked body that grows above 1 MiB": [
        chunked(*(b"10000\r\n" + b" " * 65_536 + b"\r\n" for _ in range(20)), b"0\r\n\r\n"),
        chunked(b"200000\r\n", b"x" * 2048 * KIB, b"\r\n0\r\n\r\n", path=b"/v1/room/a/call/double"),
    ],
    "chunks that are no chunks": [
        chunked(b"nonsense\r\n"),
        chunked(b"-5\r\nxxxxx\r\n0\r\n\r\n"),
        chunked(b"5\r\nxxxxxyy\r\n0\r\n\r\n"),
        chunked(b"f" * 30 + b"\r\n"),
    ],
    "a large body for what is not there": [
        publish(b"x" * 1024 * KIB, kind=b"nothing"),
        chunked(b"100000\r\n", b"x" * 1024 * KIB, b"\r\n0\r\n\r\n", path=b"/v1/nothing/a/publish"),
    ],
    "another media type, or none": [
        publish(b'{"data":1}', media=media)
        for media in (
            b"X: y",
            b"Content-Type: text/plain",
            b"Content-Type: application/x-www-form-urlencoded",
            b"Content-Type:",
            b"Content-Type: application/json2",
            b"Content-Type: multipart/form-data; boundary=x",
        )
    ]
    + [call(b"[1]", media=b"X: y"), call(b"[1]", media=NDJSON)],
    "an event above 100 KiB": [
        data(b'"' + b"x" * 100 * KIB + b'"'),
        publish(b'{"data":1}\n{"data":"' + b"x" * 100 * KIB + b'"}', media=NDJSON),
    ],
    "more than 10,000 lines": [publish(b'{"data":1}\n' * 10_001, media=NDJSON)],
    "no JSON: cut, with something behind it, compressed, empty": [
        publish(body)
        for body in (
            b'{"data":1',
            b'{"data":1} 2',
            b'{"data":}',
            b'{"data":1,}',
            b"{'data':1}",
            b'{"data":01}',
            b"nonsense",
            b'{"data":"a\nb"}',
            b'{"data":"\\q"}',
            b'{"data":"\x00"}',
            b"\x00",
            b" ",
        )
    ]
    + [
        publish(gzip.compress(b'{"data":1}'), b"Content-Encoding: gzip"),
        request(PUBLISH, JSON, b"Content-Length: 0"),
        request(PUBLISH, JSON),
    ],
    "`NaN`, `Infinity`, `-Infinity`": [data(literal) for literal in LITERALS],
    "JSON nested deeper than 100": [data(deep) for deep in DEEP] + [publish(b'{"data":1,"x":%b}' % DEEP[1])],
    "a number that does not fit a double": [data(number) for number in NUMBERS],
    "a body that is not UTF-8, or has a byte order mark": [
        data(b'"\xff"'),
        data(b'"\xed\xa0\x80"'),
        data(b'"\xc3"'),
        publish(b'{"data":1,"type":"\xff"}'),
        publish('{"data":1}'.encode("utf-16")),
        publish(b"\xef\xbb\xbf" + b'{"data":1}'),
        publish(b'{"data":1,"\xff":1}'),
    ],
    "half of a surrogate pair, in data or anywhere": [data(half) for half in SURROGATES]
    + [publish(b'{"data":1,"%b":"\\ud800"}' % field) for field in (b"type", b"topic", b"key", b"messageId", b"other")],
    "a field missing or of the wrong type, or no object at all": [
        publish(body)
        for body in (
            b"{}",
            b"[]",
            b"null",
            b"1",
            b'"data"',
            b'{"dat":1}',
            b'{"data":1,"topic":null}',
            b'{"data":1,"type":1}',
            b'{"data":1,"durable":1}',
            b'{"data":1,"key":["a"]}',
            b'{"data":1,"messageId":5}',
            b'[{"data":1}]',
        )
    ],
    "a `messageId` that is empty or above 200 characters": [
        publish(b'{"data":1,"messageId":""}'),
        publish(b'{"data":1,"messageId":"%b"}' % (b"x" * 201)),
    ],
    "CR, LF or NUL in a type, key or topic, or one above 200 bytes": [
        publish(b'{"data":1,"%b":"%b"}' % (field, name)) for field in (b"type", b"key", b"topic") for name in NAMES
    ],
    "a reserved type": [
        publish(b'{"data":1,"type":"%b"}' % name)
        for name in (b"hello", b"gap", b"snapshot", b"status", b"open", b"error", b"")
    ],
    "a key of the object twice": [
        last_key_counts,
        publish(b'{"data":1,"data":2}'),
        publish(b'{"type":"gap","type":"a","data":{"a":1,"a":2}}'),
    ],
    "CR, LF or NUL in a `messageId`": [publish(b'{"data":1,"messageId":"\\r\\n\\u0000"}')],
    "a `messageId` again": [
        done_once,
        publish(b'{"data":1,"messageId":"again"}'),
        publish(b'{"data":2,"messageId":"again"}'),
    ],
    "any of these in a line of many": [
        nothing_of_it,
        *(
            publish(b'{"data":1}\n' + line, media=NDJSON)
            for line in (
                b"nonsense",
                b'{"data":NaN}',
                b'{"data":1e999}',
                b'{"data":"\\ud800"}',
                b'{"data":"\xff"}',
                b"{}",
                b"[]",
                b'{"data":1,"topic":"\\n"}',
                b'{"data":1,"type":"gap"}',
                b'{"data":1,"messageId":""}',
                b'{"data":%b}' % DEEP[2],
            )
        ),
    ],
    "many lines without an event": [
        publish(b"\n\r\n \n", media=NDJSON),
        request(PUBLISH, NDJSON, b"Content-Length: 0"),
    ],
    "an `Idempotency-Key` that is empty, above 200 characters, or not UTF-8": [
        publish(b'{"data":1}', b"Idempotency-Key: " + key) for key in (b"", b"x" * 201, b"\xff", b"\xed\xa0\x80")
    ],
    "a publish into a kind that takes none": [publish(b'{"data":1}', kind=b"board")],
    "a call of an unknown, hidden or misspelt method": [
        call(b"[]", method=method)
        for method in (
            b"nothing",
            b"inside",
            b"start",
            b"publish",
            b"__init__",
            b"Double",
            b"double%00",
            b"..",
            b"x" * 5_000,
            b"",
        )
    ],
    "a call with too many arguments, too few, unknown names or wrong types": [
        call(body)
        for body in (
            b"[]",
            b"[1,2]",
            b'{"number":1,"x":2}',
            b'{"self":1}',
            b'{"number":1,"%b":1}' % (b"x" * 90_000),
            b'["1"]',
            b"[null]",
            b"[1.5]",
            b'{"number":[1]}',
            b"[{}]",
            b"[true]",
        )
    ]
    + [call(json.dumps([1] * 100_000).encode())],
    "arguments that are no array and no object, or not such JSON as above": [
        call(body)
        for body in (b"7", b'"a"', b"[1", b"nonsense", b'["\xff"]', b'["\\ud800"]', *NUMBERS[:4], *DEEP[:3], *LITERALS)
    ],
}
