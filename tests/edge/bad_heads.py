"""What is sent for each row of the tables of heads and handshakes: several variants a row, to be treated alike."""

import trio
from bad_requests import HISTORY, JSON, KIB, PUBLISH, STREAM, call, chunked, get, publish
from wrong_input import HANDSHAKE, Behind, ask, peer, request


def pieces(first, *rest):
    """A request, and what comes behind it while it is answered."""

    async def case(service):
        async with peer(service) as client:
            client.push(first)
            for piece in rest:
                await trio.sleep(0.05)
                client.push(piece)
            return await fate(client)

    return case


async def fate(client):
    """What the one answer is, and whether it is the only one."""
    status, fields = await client.head()
    await client.take(int(fields["content-length"]))
    if fields.get("connection") == "close":
        return str(status), await client.end()
    with trio.move_on_after(0.2):
        await client.more()
    assert client.buffer == b"", client.buffer  # nobody has asked anything more
    client.push(get())
    return str(status), "kept" if (await client.head())[0] == 200 else "closed"


async def every_request_between(service):
    """Empty lines behind each of several requests in one piece."""
    async with peer(service) as client:
        client.push((publish(b'{"data":1}') + b"\r\n") * 3)
        for _ in range(2):
            status, fields = await client.head()
            assert status == 200
            await client.take(int(fields["content-length"]))
        return await fate(client)


async def it_is_done(service):
    """The answer to a final request is the answer: what it asked for is done, once."""
    last = publish(b'{"data":1}', b"Connection: close").replace(b"/room/a/", b"/room/last/")
    assert ("200", "closed") == await ask(service, last + b"\r\n")
    history = await service.ask("GET", "/v1/room/last/history")
    assert [1] == [event["data"] for event in history.json["events"]]
    return await ask(service, last + last)


LAST = b"Connection: close"
WAIT = call(b"[0.2]", method=b"wait")
LAST_WAIT = WAIT.replace(JSON, JSON + b"\r\n" + LAST)
OLD_WAIT = WAIT.replace(b"HTTP/1.1", b"HTTP/1.0")

NO_HOSTS = (b"a b/c", b"a/b", b"http://a", b"u@a", b"a:b", b"a:1:2", b"a, b", b"[::1", b"%zz", b"\xe9", b"a?")
HOSTS = (b"", b"x:8000", b"x:", b"EXAMPLE.com.", b"under_score", b"a,b", b"127.0.0.1:1", b"[::1]:80", b"%C3%A9.example")
HEADS = {
    "a head above 16 KiB: one large field, or thousands": [
        get(b"X-Large: " + b"x" * 40 * KIB),
        get(*(b"X-%d: x" % n for n in range(4_000))),
    ],
    "a URL above 16 KiB": [get(path=b"/" + b"x" * 40 * KIB), get(path=b"/?" + b"x" * 40 * KIB)],
    "no HTTP: another protocol, no version, no method": [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/x\r\nHost: x\r\n\r\n",
        b"GET /healthz HTCPCP/1.1\r\nHost: x\r\n\r\n",
        b"G\xc3\x89T /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G(T /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00\x00\x00\x00\r\n\r\n",
        b"{}\r\n\r\n",
    ],
    "a space, a control character or more than ASCII in the target": [
        get(path=b"/health z"),
        get(path=b"/health\x00z"),
        get(path=b"/health\x7fz"),
        get(path=b"/health\xc3\xa9z"),
        get(path=b""),
    ],
    "a bare CR or a NUL in a field, a space before its colon, a nameless field": [
        get(b"X: a\rb"),
        get(b"X: a\x00b"),
        get(b"X : a"),
        get(b": a"),
        get(b"nothing"),
        get(b"Last-Event-ID: 0-0\x00"),
    ],
    "no `Host`, two, or one that names no host": [
        *(b"GET /healthz HTTP/1.1\r\nHost: %b\r\n\r\n" % host for host in NO_HOSTS),
        b"GET /healthz HTTP/1.0\r\nHost: a b/c\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        get(b"Host: x"),
        get(b"host: y"),
    ],
    "a `Host` with a port, of another name, or empty": [
        b"GET /healthz HTTP/1.1\r\nHost: %b\r\n\r\n" % host for host in HOSTS
    ],
    "`Content-Length` twice and different, negative, no number, or beyond 20 digits": [
        request(PUBLISH, JSON, b"Content-Length: 5", b"Content-Length: 6") + b"xxxxxx",
        request(PUBLISH, JSON, b"Content-Length: 5, 6") + b"xxxxxx",
        *(
            request(PUBLISH, JSON, b"Content-Length: " + value) + b"xxxxx"
            for value in (b"-5", b"+5", b"0x5", b"five", b"5.0", b"", b"9" * 21, b"9" * 5_000)
        ),
    ],
    "`Content-Length` twice and the same": [
        request(PUBLISH, JSON, b"Content-Length: 10", b"Content-Length: 10") + b'{"data":1}',
        request(PUBLISH, JSON, b"Content-Length: 10, 10") + b'{"data":1}',
    ],
    "`Content-Length` and `Transfer-Encoding`": [
        chunked(b"a\r\n", b'{"data":1}', b"\r\n0\r\n\r\n").replace(b"Host: x", b"Host: x\r\nContent-Length: 10"),
        chunked(b"0\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").replace(JSON, b"Content-Length: 5"),
    ],
    "a `Transfer-Encoding` other than `chunked`, or two": [
        request(PUBLISH, b"Transfer-Encoding: gzip"),
        request(PUBLISH, b"Transfer-Encoding: gzip, chunked"),
        request(PUBLISH, b"Transfer-Encoding: xchunked"),
        request(PUBLISH, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    ],
    "`Expect` other than `100-continue`": [
        get(b"Expect: 200-ok"),
        request(PUBLISH, JSON, b"Expect: 100-continue, more", body=b'{"data":1}'),
        request(PUBLISH, JSON, b"Expect: 100-continue", b"Expect: 100-continue", body=b'{"data":1}'),
    ],
    "HTTP/2 without TLS (its preface), or another version": [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n",
    ],
    "a stream over HTTP/1.0": [b"GET /v1/room/a/events HTTP/1.0\r\n\r\n"],
    "an upgrade to `h2c` or to anything unknown": [
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        get(b"Connection: Upgrade", b"Upgrade: TLS/1.3"),
        get(b"Connection: Upgrade", b"Upgrade: h2c", path=b"/v1/room/a/history"),
    ],
    "an absolute target, `http://host/path`": [
        get(path=b"http://elsewhere.example/healthz"),
        get(path=b"HTTPS://x:1/healthz?a=b"),
        get(path=b"http://x/v1/room/a/history"),
    ],
    "`CONNECT`, `TRACE`": [
        request(b"CONNECT elsewhere.example:443"),
        request(b"CONNECT /healthz"),
        request(b"TRACE /"),
        request(b"TRACE /healthz"),
        request(b"TRACE /v1/room/a/history"),
    ],
    "`OPTIONS *`": [request(b"OPTIONS *")],
    "a method that the route does not take, or nobody knows": [
        request(b"POST /healthz"),
        request(b"BREW /healthz"),
        request(b"get /v1/room/a/publish"),
        request(b"post /v1/room/a/publish", JSON, body=b'{"data":1}'),
        *(request(method + b" /healthz") for method in (b"get", b"head", b"Head", b"hEAD")),
        *(request(b"head " + path) for path in (b"/readyz", b"/metrics", b"/v1/room/a/history", b"/v1/room/a/events")),
        request(b"DELETE /v1/room/a/events"),
        request(b"OPTIONS /v1/room/a/call/double"),
    ],
    "empty lines before a request, or behind one": [
        b"\r\n" + get(),
        b"\r\n\r\n" + get(),
        b"\n" + get(),
        publish(b'{"data":1}') + b"\r\n",
        WAIT + b"\r\n",
        pieces(b"\r", b"\n" + get()),
        pieces(b"\r\n\r", b"\n", get()),
        pieces(publish(b'{"data":1}'), b"\r\n"),
        pieces(WAIT, b"\r", b"\n"),
        pieces(WAIT + b"\r", b"\n\r\n"),
        every_request_between,
    ],
    "more than 16 bytes of empty lines before a request, or a bare CR": [
        b"\r\n" * 9 + get(),
        b"\n" * 17,
        b"\r\n" * 20_000,
        b"\r" + get(),
        b"\r\r\n" + get(),
    ],
    "bytes behind a request that says it is the last, by `Connection: close` or HTTP/1.0": [
        it_is_done,
        *(
            case
            for behind in (b"\r\n", b"x", get(), b"junk\r\n\r\n", bytes(100_000))
            for first in (publish(b'{"data":1}', LAST), LAST_WAIT, OLD_WAIT, get(LAST))
            for case in (first + behind, pieces(first, behind))
        ),
    ],
    "`Last-Event-ID`, `Content-Type` or `Idempotency-Key` twice": [
        request(STREAM, b"Last-Event-ID: 0-0", b"Last-Event-ID: 0-0"),
        request(HISTORY, b"Last-Event-ID: 0-0", b"last-event-id: 1-0"),
        publish(b'{"data":1}', b"content-type: application/json"),
        publish(b'{"data":1}', b"Idempotency-Key: a", b"Idempotency-Key: b"),
    ],
    "bytes after a stream has begun": [
        Behind(request(STREAM), request(b"GET /healthz")),
        Behind(request(STREAM), b"x"),
        Behind(request(STREAM), bytes(10_000)),
    ],
    "bytes in one piece with a stream's request": [request(STREAM) + request(b"GET /healthz"), request(STREAM) + b"x"],
}

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = b"Sec-WebSocket-Version: 13"


def changed(old, new):
    assert HANDSHAKE.count(old) == 1
    return HANDSHAKE.replace(old, new)


HANDSHAKES = {
    "`/v1/ws` without an upgrade, without `Connection`, or for another protocol": [
        get(path=b"/v1/ws"),
        changed(b"Connection: Upgrade\r\n", b""),
        changed(b"Connection: Upgrade", b"Connection: keep-alive"),
        changed(b"Upgrade: websocket\r\n", b""),
        changed(b"Upgrade: websocket", b"Upgrade: h2c"),
        changed(b"Upgrade: websocket", b"Upgrade: websocket2"),
    ],
    "an upgrade to several protocols, with `websocket` among them": [
        changed(b"Upgrade: websocket", b"Upgrade: " + value)
        for value in (b"websocket, h2c", b"h2c,WebSocket", b"h2c , websocket , x/1", b"WEBSOCKET", b", websocket")
    ],
    "an upgrade by `POST`": [changed(b"GET ", method) for method in (b"POST ", b"PUT ", b"get ")],
    "an upgrade over HTTP/1.0": [changed(b"HTTP/1.1", b"HTTP/1.0")],
    "no `Sec-WebSocket-Key`, or one that is not 16 bytes in base64": [
        changed(KEY + b"\r\n", b""),
        *(
            changed(KEY, b"Sec-WebSocket-Key: " + value)
            for value in (
                b"",
                b"x",
                b"dGhlIHNhbXBsZQ==",
                b"dGhlIHNhbXBsZSBub25jZTE=",
                b"!!!!!!!!!!!!!!!!!!!!!!==",
                b"\xff" * 24,
            )
        ),
    ],
    "`Sec-WebSocket-Key`, `Sec-WebSocket-Version` or `Upgrade` twice": [
        changed(KEY, KEY + b"\r\n" + KEY),
        changed(VERSION, VERSION + b"\r\n" + VERSION),
        changed(VERSION, VERSION + b"\r\nSec-WebSocket-Version: 8"),
        changed(b"Upgrade: websocket", b"Upgrade: websocket\r\nUpgrade: websocket"),
        changed(b"Upgrade: websocket", b"Upgrade: h2c\r\nUpgrade: websocket"),
    ],
    "another `Sec-WebSocket-Version`, or none": [
        changed(VERSION + b"\r\n", b""),
        *(changed(VERSION, b"Sec-WebSocket-Version: " + value) for value in (b"8", b"14", b"", b"13, 8", b"x")),
    ],
    "a handshake with a body": [
        changed(VERSION, VERSION + b"\r\nContent-Length: 5"),
        changed(VERSION, VERSION + b"\r\nContent-Length: 5") + b"xxxxx",
        changed(VERSION, VERSION + b"\r\nTransfer-Encoding: chunked"),
    ],
    "bytes behind a handshake, before its answer": [
        HANDSHAKE + b"x",
        HANDSHAKE + HANDSHAKE,
        HANDSHAKE + b"\x81\x80abcd",
    ],
    "a handshake for a path that is no WebSocket": [
        changed(b"/v1/ws", path) for path in (b"/", b"/v1/ws/", b"/v1/room/a/events", b"/v1//ws", b"/healthz")
    ],
    "a handshake for a path with a malformed id": [changed(b"/v1/ws", b"/v1/room/%FF/events")],
    "offers of compression and of subprotocols": [
        changed(VERSION, VERSION + b"\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        changed(VERSION, VERSION + b"\r\nSec-WebSocket-Protocol: chat, superchat"),
        changed(VERSION, VERSION + b"\r\nSec-WebSocket-Extensions: \xff\r\nSec-WebSocket-Protocol: ,,"),
    ],
}
