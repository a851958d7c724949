"""HTTP requests of every kind, right and wrong, with h11's sans-I/O side as the oracle.

It is given the same bytes as the service and says whether a request is in them, whole, or where the rules are broken.
A whole one must be answered by a response that a client can read, a broken one by a refusal; never by a 500. The
service may be stricter than the oracle: a refusal is an answer.

An answer may be lost in one case alone: the request begins a stream or a WebSocket, and bytes came behind its head.
There is no place for such bytes, so the connection is reset at their sight, whatever of the answer is on its way.
"""

import json
import re
from contextlib import nullcontext

import h11
import pytest
import trio
from fuzzed_service import connected, fuzzed_service, many, receive, rude_service, send
from hypothesis import event, given
from hypothesis import strategies as st

mostly = st.integers(0, 9).map(bool)
METHODS = [
    b"GET",
    b"GET",
    b"POST",
    b"POST",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"CONNECT",
    b"TRACE",
    b"get",
    b"head",
    b"Head",
    b"post",
    b"G\xc3",
]
TARGETS = [
    b"/v1/room/fuzz/publish", b"/v1/room/fuzz/publish", b"/v1/room/fuzz/call/double", b"/v1/room/fuzz/call/none",
    b"/v1/room/fuzz/history", b"/v1/room/fuzz/history?limit=3&since=0-0&topics=a,,b", b"/v1/room/fuzz/events",
    b"/v1/board/fuzz/events?topics=a&since=1-1", b"/v1/room/fuzz/events?since=x", b"/v1/ws", b"/healthz", b"/readyz",
    b"/", b"*", b"//", b"/v1//x/events", b"/v1/room/%2e%2e/events", b"/v1/room/%ff/events", b"/v1/room/a%00b/history",
    b"/v1/Room/a/history", b"/v1/none/a/history", b"http://x/healthz", b"x:443",
    b"/v1/room/" + b"i" * 300 + b"/history",
    b"/v1/strict/a/publish", b"/v1/known/two/history", b"/healthz?" + b"q" * 5_000, b"/v1/room/fuzz/history?limit=-1",
]  # fmt: skip
BODIES = [
    b"", b'{"data":1}', b'{"data":{"a":[1,2]},"topic":"t","type":"x"}', b"[4]", b'{"number":4}', b"[]", b"{", b"NaN",
    b'{"data":1}\n{"data":2}', b'{"data":1}\n{"dat":2}\n', b'{"data":"\\ud800"}', b'{"data":"\xff"}', b"[" * 5_000,
    b'{"data":1,"type":"a\\nb"}', b'{"data":' + b"9" * 400 + b"}", b'{"data":"' + b"x" * 110_000 + b'"}',
]  # fmt: skip
HEADERS = [
    b"content-type: application/json", b"content-type: application/json", b"content-type: application/x-ndjson",
    b"content-type: text/plain", b"connection: close", b"connection: keep-alive, upgrade", b"upgrade: websocket",
    b"upgrade: h2c", b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", b"sec-websocket-version: 13", b"host: y",
    b"sec-websocket-extensions: permessage-deflate", b"expect: 100-continue", b"expect: wonders", b"last-event-id: 5-5",
    b"last-event-id: \xff", b"idempotency-key: k", b"idempotency-key: " + b"k" * 300, b"transfer-encoding: gzip",
    b"content-length: 3", b"content-length: -1", b"content-length: 99999999999999999999", b"x: " + b"y" * 9_000,
    b"no colon", b": no name", b"na me: v", b" folded", b"http2-settings: AAMAAABkAAQAAP__", b"te: trailers",
]  # fmt: skip
VERSIONS = [b"HTTP/1.1"] * 12 + [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.10", b"ICY", b""]


@st.composite
def requests(draw):
    """One request as a client writes it, right mostly, with a strange part here and there."""
    body = draw(st.sampled_from(BODIES))
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=5))
    if draw(mostly):
        headers.insert(0, b"host: x")
    if draw(st.booleans()):
        headers.append(b"transfer-encoding: chunked")
        size = draw(st.integers(1, 5_000))
        chunks = [body[n : n + size] for n in range(0, len(body), size)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        body += draw(st.sampled_from([b"0\r\n\r\n"] * 6 + [b"0\r\nx: y\r\n\r\n", b"zz\r\n", b"", b"0\r\n", b"-1\r\n"]))
    elif body or draw(st.booleans()):
        headers.append(b"content-length: %d" % len(body))
    line = b" ".join((draw(st.sampled_from(METHODS)), draw(st.sampled_from(TARGETS)), draw(st.sampled_from(VERSIONS))))
    end = draw(st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r"]))
    return end.join((line, *headers, b"", b"")) + body


@st.composite
def floods(draw):
    """What is sent: a request, harmed or not, another behind it or not; or anything at all."""
    data = draw(st.one_of(requests(), requests(), requests(), requests(), requests(), st.binary(max_size=300)))
    for place, harm in draw(st.lists(st.tuples(st.integers(0, 2_000), st.binary(max_size=3)), max_size=2)):
        at = place % (len(data) + 1)
        data = data[:at] + harm + data[at + (0 if draw(st.booleans()) else len(harm)) :]
    before = draw(st.sampled_from([b""] * 9 + [b"\r\n", b"\n\r\n", b"\r", b"\r\n" * 12]))
    return before + data + draw(st.one_of(st.just(b""), st.just(b"\r\n"), requests(), st.binary(max_size=50)))


def judge(data):
    """What the oracle finds in the bytes: a whole request, a broken head or body, or a part; its method; and whether
    the answer may be lost.
    """
    oracle = h11.Connection(h11.SERVER)
    method, broken, may_be_lost = b"GET", "broken head", False
    empty = re.match(rb"(\r?\n)*", data).group()
    if len(empty) <= 16:  # the service ignores them, and the oracle does not
        data = data[len(empty) :]
    if data in {b"", b"\r"}:
        return "part", method, may_be_lost
    try:
        oracle.receive_data(data)
        while True:
            found = oracle.next_event()
            if isinstance(found, h11.Request):
                method, broken = found.method, "broken body"
                may_be_lost = begins_stream(found) and bool(oracle.trailing_data[0])
            elif isinstance(found, h11.EndOfMessage):
                return "whole", method, may_be_lost
            elif not isinstance(found, h11.Data):
                return "part", method, may_be_lost
    except h11.RemoteProtocolError:
        return broken, method, may_be_lost


def begins_stream(request):
    """Whether the answer may be a stream of events, or a WebSocket."""
    upgrades = any(name == b"upgrade" and b"websocket" in value.lower() for name, value in request.headers)
    return request.method == b"GET" and (upgrades or request.target.partition(b"?")[0].endswith(b"/events"))


class Answer:
    """What comes back, read by a client."""

    def __init__(self, sock, method):
        self._sock = sock
        self._client = h11.Connection(h11.CLIENT)
        self._client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        self._client.send(h11.EndOfMessage())
        self.response = None
        self.body = b""

    def listen(self):
        """Read the response, to its end if it has one."""
        while True:
            found = self._client.next_event()
            if found is h11.NEED_DATA:
                data = receive(self._sock)
                if not data and (self.response is None or self._client.their_state is not h11.SEND_BODY):
                    return  # the end came before the response did
                self._client.receive_data(data)
            elif isinstance(found, h11.InformationalResponse) and found.status_code == 101:
                self.response = found
                return
            elif isinstance(found, h11.Response):
                self.response = found
                if b"text/event-stream" in dict(found.headers).get(b"content-type", b""):
                    return
            elif isinstance(found, h11.Data):
                self.body += bytes(found.data)
            elif isinstance(found, h11.EndOfMessage):
                return

    def check(self, method):
        """A refusal says why, in the one form that there is."""
        status = self.response.status_code
        assert status == 101 or status in {200, 501, 503, 505} or 400 <= status < 500, (status, self.body)
        if status >= 400 and method != b"HEAD":
            error = json.loads(self.body)["error"]
            assert {"code", "message"} == error.keys()
            assert error["code"] not in {"internal", ""}


def ask(address, data, cuts):
    """Send all that, and look at what comes back; gives in a word what it was."""
    verdict, method, may_be_lost = judge(data)
    with connected(address) as sock:
        send(sock, data, cuts)
        if verdict == "part":
            return "part"  # whoever waits for the rest sees the end
        answer = Answer(sock, method)
        answer.listen()
        if answer.response is None:
            assert may_be_lost, (verdict, data[:300])
            return f"{verdict} lost"
        answer.check(method)
        # What needs no body may be answered before the body breaks.
        assert verdict != "broken head" or answer.response.status_code >= 400
        return f"{verdict} {answer.response.status_code}"


@pytest.mark.slow
@pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])
async def test_whatever_is_asked_the_answer_is_a_response_or_the_end(foreign, request):
    """No request, however broken, is answered by a 500, by bytes that are no HTTP, by silence, or by the end alone.

    `--examples N` tries more than CI does.
    """
    async with fuzzed_service(foreign=foreign) as address:

        @many(request)
        @given(floods(), st.lists(st.integers(0, 1 << 17), max_size=4))
        def fuzz(data, cuts):
            event(ask(address, data, cuts))

        await trio.to_thread.run_sync(fuzz)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", True),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET", True),
        (b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", True),
        (b"POST /v1/room/a/publish HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", True),
        (b"GET /v1/room/a/events HTTP/1.1\r\nhost: x\r\n\r\n", True),
        (b"GET /v1/room/a/events HTTP/1.1\r\nhost: x\r\n\r\nGET", False),
    ],
    ids=["whole", "another behind it", "broken head", "broken body", "stream", "bytes behind a stream's"],
)
def test_a_service_that_never_answers_is_found_out(data, found):
    """One that takes every request and ends the connection fails, wherever an answer is due."""
    with rude_service() as address, pytest.raises(AssertionError) if found else nullcontext():
        ask(address, data, ())
