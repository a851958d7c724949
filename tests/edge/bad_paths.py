"""What is sent for each row of the table of paths and queries: several variants a row, to be treated alike."""

from bad_requests import HISTORY, STREAM, get, history, publish
from wrong_input import ask, request


async def once_decoded(service):
    """Two spellings of one id, and no other's."""
    await service.publish("here", id="%2e%2e")
    answer = await service.ask("GET", "/v1/room/%252e%252e/history")
    assert ["here"] == [event["data"] for event in answer.json["events"]]
    return await ask(service, history(b"room/%252e%252e"))


async def last_counts(service):
    """`limit` and `since` are those given last, topics all of them."""
    for topic in "abc":
        await service.publish(topic, topic, id="keys")
    path = b"/v1/room/keys/history?topics=a&limit=1&since=9-9&topics=c&limit=9&since=0-0&nothing=1"
    answer = await service.ask("GET", path.decode())
    assert ["a", "c"] == [event["data"] for event in answer.json["events"]]
    return await ask(service, get(path=path))


PATHS = {
    "`.`, `..`, `%2e%2e` or nothing for an id": [
        history(b"room/" + id_) for id_ in (b".", b"..", b"%2e", b"%2E%2e", b".%2e", b"%2e.", b"")
    ],
    "`%2F` in an id": [history(b"room/a%2Fb"), history(b"room/%2f"), history(b"room/..%2F..%2Fetc")],
    "CR, LF, NUL or another control character, encoded, in an id": [
        history(b"room/a" + code + b"b") for code in (b"%0d%0a", b"%0A", b"%00", b"%1b", b"%7F", b"%C2%85")
    ],
    "what is not UTF-8, overlong, or a surrogate, percent-encoded in an id": [
        history(b"room/" + id_) for id_ in (b"%FF", b"a%C3", b"%c0%ae%c0%ae", b"%ed%a0%80", b"%F5%80%80%80")
    ],
    "`%` without two hexadecimal digits in an id": [
        history(b"room/" + id_) for id_ in (b"a%", b"%zz", b"%u0041", b"a%2")
    ],
    "an id encoded twice": [once_decoded, history(b"room/%252e%252e"), history(b"room/%252F"), history(b"room/%25ff")],
    "an id above 200 bytes": [history(b"room/" + b"x" * 201), history(b"room/" + b"%C3%A9" * 101)],
    "a kind with a capital, a dot, a space": [
        history(kind + b"/a") for kind in (b"Room", b"..", b"r%20m", b"", b"r" * 33, b"1room", b"room%00")
    ],
    "`..`, `//` or a last `/` elsewhere in the path": [
        get(path=path)
        for path in (
            b"/v1/room/a/../b/history",
            b"//v1/room/a/history",
            b"/v1//room/a/history",
            b"/v1/room/a/history/",
            b"/v1/./room/a/history",
            b"/../v1/room/a/history",
            b"/healthz/",
            b"/v1/room/a/./history",
        )
    ],
    "an unknown page or action": [
        get(path=path) for path in (b"/nothing", b"/v1/room/a/nothing", b"/v1/room/a/%68istory", b"/v2/room/a/history")
    ],
    "an unknown kind": [history(b"nothing/a"), request(b"GET /v1/nothing/a/events"), publish(b"{}", kind=b"nothing")],
    "an id that its kind does not have": [history(b"known/two"), request(b"GET /v1/known/two/events")],
    "more than 100 topics": [
        request(kind + b"?topics=" + b",".join(b"%d" % n for n in range(101))) for kind in (STREAM, HISTORY)
    ],
    "10,000 topics in a query": [request(STREAM + b"?topics=" + b",".join(b"%d" % n for n in range(10_000)))],
    "a topic with a control character, an encoded comma, no UTF-8, or above 200 bytes": [
        request(STREAM + b"?topics=" + topic) for topic in (b"a%0Ab", b"%00", b"a%2Cb", b"%FF", b"%", b"x" * 201)
    ],
    "a `since` that is no event id": [
        request(kind + b"?since=" + since)
        for since in (
            b"",
            b"nonsense",
            b"1",
            b"1-2-3",
            b"-1-0",
            b"1e3-0",
            b"01-0",
            b"9" * 5_000 + b"-0",
            b"1-0%0A",
            b"%FF",
            b"%EF%BC%91-0",
            b"18446744073709551616-0",
            b"1-0%00",
        )
        for kind in (STREAM, HISTORY)
    ],
    "a `Last-Event-ID` that is no event id": [
        request(STREAM, b"Last-Event-ID: " + last)
        for last in (b"nonsense", b"1", b"1-0, 2-0", b"\xff", b"%31-0", b"1 -0")
    ],
    "a `since` far in the future": [
        request(STREAM + b"?since=18446744073709551615-18446744073709551615"),
        request(STREAM, b"Last-Event-ID: 9999999999999-0"),
    ],
    "a `limit` that is no number, negative, 0 or above 1,000": [
        request(HISTORY + b"?limit=" + limit)
        for limit in (b"", b"ten", b"-1", b"0", b"1.5", b"1e2", b"1001", b"9" * 10_000, b"%31", b"+1", b"0x10")
    ],
    "a `format` other than `envelope`": [request(STREAM + b"?format=xml"), request(STREAM + b"?format=")],
    "a key of the query twice, or unknown": [
        last_counts,
        request(HISTORY + b"?limit=8&limit=9"),
        request(HISTORY + b"?topics=a&topics=b&since=0-0&since=1-0"),
        request(HISTORY + b"?nothing=1&&=&x"),
    ],
}
