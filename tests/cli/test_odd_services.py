"""`tail` and `publish` as child processes, against servers that say what none should: a sentence, and no traceback."""

import json
import socket
from contextlib import asynccontextmanager

import pytest
import test_publish
import trio
from test_tail import OK, foreign, run
from wsproto.utilities import generate_accept_token

EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
UP = "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


async def complaint(command, host):
    """The one line with which `tail` or `publish` gives up on the server."""
    if command == "tail":
        done = await run(f"http://{host}/stream")
        code, notes = done.returncode, done.stderr.decode()
    else:
        code, _, notes = await test_publish.run(f"{host}/channel/a", "1", "--retry-for", 0)
    assert (1, 1) == (code, notes.count("\n")), notes
    return notes


@asynccontextmanager
async def odd_websocket(answer):
    """A server that answers each handshake with `answer(accept key)`, which is bytes or many of them, and listens."""

    async def serve(stream):
        head = await stream.receive_some(65536)
        (key,) = (line[19:] for line in head.decode().split("\r\n") if line.lower().startswith("sec-websocket-key: "))
        said = answer(generate_accept_token(key.encode()).decode())
        try:
            for piece in [said] if isinstance(said, bytes) else said:
                await stream.send_all(piece)
            while await stream.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, serve, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def subscribed(*results):
    """The handshake, and the answer to a subscription, which may as well come before it is asked for."""
    text = json.dumps({"type": "batch_subscribed", "messageId": "1", "data": {"results": results}}).encode().ljust(200)

    def answer(accept):
        head = f"{UP}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        return head + bytes([0x81, 126]) + len(text).to_bytes(2, "big") + text

    return answer


def opened(stream):
    return {"type": "subscribed", "data": {"stream": stream, "id": "1-0", "recovered": False}}


# -- ids


@pytest.mark.parametrize(
    ("id", "sent"),
    [
        ("é€", "é€".encode()),
        (" x\t", b"x"),  # HTTP knows no white space at the edges of a value
        ("a b", b"a b"),
        ("a\x0bb", None),  # what no header can hold
        (" ", None),
    ],
)
async def test_an_id_goes_back_as_utf_8(id, sent):
    """As the standard has it; one that cannot be sent is left out."""
    requests = []
    async with foreign(OK + f"retry: 1\nid: {id}\ndata: 1\n\n".encode(), EMPTY, requests=requests) as host:
        done = await run(f"http://{host}/stream")
    assert (0, 1, 2) == (done.returncode, done.stdout.count(b"\n"), done.stderr.count(b"\n")), done.stderr
    fields = dict(line.split(b": ", 1) for line in requests[1].split(b"\r\n") if b": " in line)
    assert sent == fields.get(b"last-event-id")


async def test_since_of_another_server_is_sent_as_utf_8():
    """Whatever id was printed can be given again."""
    requests = []
    async with foreign(EMPTY, requests=requests) as host:
        assert 0 == (await run(f"http://{host}/stream", "--since", "é€")).returncode
    assert "\r\nlast-event-id: é€\r\n".encode() in requests[0].lower()


@pytest.mark.parametrize("since", [" a ", "1-1 ", "\u00a0a", " "])
def test_since_with_white_space_at_an_edge(invoke, since):
    """It would not be the same at the other end."""
    result = invoke("tail", "http://127.0.0.1:9/stream", "--exact", "--since", since)
    assert (2, 1) == (result.exit_code, result.stderr.count("\n"))
    assert result.stderr.startswith("Error: --since: ")


# -- answers


@pytest.mark.parametrize("command", ["tail", "publish"])
@pytest.mark.parametrize("zone", ["+99999999999999999", "-99999999999999999", "+9999"])
async def test_a_date_that_no_calendar_has(command, zone):
    """It asks for nothing."""
    head = (
        f"HTTP/1.1 503 No\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 {zone}\r\nDate: Wed, 21 Oct 2026 07:28:00 GMT\r\n"
    )
    async with foreign(f"{head}Content-Length: 0\r\n\r\n".encode()) as host:
        notes = await complaint(command, host)
    assert "(HTTP 503)" in notes


@pytest.mark.parametrize(
    "results",
    [[], [opened("channel/b")], [opened("channel/a"), opened("channel/b")], [opened("channel/a"), opened("channel/a")]],
    ids=["none", "another", "one more", "twice"],
)
async def test_a_subscription_that_was_not_asked_for(results):
    """What is no answer to what was asked comes from no service of ours."""
    async with odd_websocket(subscribed(*results)) as host:
        done = await run(f"ws://{host}/channel/a", "--seconds", 20)
    assert (2, 1) == (done.returncode, done.stderr.count(b"\n")), done.stderr
    assert "no service of ours" in done.stderr.decode()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n", "unrecognized extension permessage-deflate"),
        ("Sec-WebSocket-Protocol: foo\r\n", "unrecognized subprotocol foo"),
        ("Sec-WebSocket-Protocol: \xe9\r\n", "broke the WebSocket protocol"),
        ("Sec-WebSocket-Accept: x\r\n", "Bad accept token"),
        ("x: " + "y" * 1_000_000 + "\r\n", "its answer is no HTTP"),
        ("no header\r\n", "its answer is no HTTP"),
    ],
    ids=["extension", "subprotocol", "no ASCII", "key", "long", "no HTTP"],
)
async def test_a_handshake_that_is_none(extra, words):
    """The sentence is about what the server did, and not about what the library made of it."""

    def answer(accept):
        return f"{UP}Sec-WebSocket-Accept: {accept}\r\n{extra}\r\n".encode("latin-1")

    async with odd_websocket(answer) as host:
        done = await run(f"ws://{host}/channel/a", "--seconds", 20)
    assert (1, 1) == (done.returncode, done.stderr.count(b"\n")), done.stderr
    assert words in done.stderr.decode()
    assert "state=" not in done.stderr.decode()
    assert len(done.stderr) < 400


async def test_a_handshake_refused_without_end():
    """A refusal is known by its head, and is not read for longer than it takes to find a sentence in it."""

    def answer(_accept):
        yield b"HTTP/1.1 403 No\r\n\r\n"
        while True:
            yield b"x" * 65536

    async with odd_websocket(answer) as host:
        done = await run(f"ws://{host}/channel/a", "--seconds", 20)
    assert (2, 1) == (done.returncode, done.stderr.count(b"\n")), done.stderr
    assert "Forbidden (HTTP 403)" in done.stderr.decode()


@pytest.mark.parametrize(
    "answer",
    [
        {"id": "1-0", "count": -5},
        {"id": "1-0", "count": 0},
        {"id": "1-0", "count": 2},
        {"id": "\x1b[31mX", "count": 1},
        {"id": "", "count": 1},
    ],
)
async def test_an_answer_to_publish_that_is_none(answer):
    """One event was sent: nothing else can have been published, and an id is an id."""
    body = json.dumps(answer).encode()
    async with foreign(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)) as host:
        code, said, notes = await test_publish.run(f"{host}/channel/a", "1")
    assert (2, "", 1) == (code, said, notes.count("\n")), (said, notes)
    assert "no service of ours" in notes


# -- TLS where none was expected


@pytest.mark.parametrize("command", ["tail", "publish"])
async def test_plain_http_where_tls_is_spoken(child, command, tmp_path):
    """A server that waits for TLS hangs up without a word: the sentence says what that may mean."""
    async with foreign(OK, tls=True) as host:
        notes = await complaint(command, host)
    assert "https:" in notes


async def test_no_talk_of_tls_where_it_is_spoken():
    """Half an answer is no TLS, and neither is a refused port."""
    async with foreign(OK[:30]) as host:
        assert b"https:" not in (await run(f"http://{host}/stream")).stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert b"https:" not in (await run(f"127.0.0.1:{taken.getsockname()[1]}/stream")).stderr
