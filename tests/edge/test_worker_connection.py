"""The hardened connection over real sockets on loopback: its clocks, its ends, its direct transport, its TLS."""

import gc
import ssl
import weakref
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from worker_rig import (
    GET,
    PATIENCE,
    UPGRADE,
    client_frame,
    connect,
    eventually,
    get,
    read_to_end,
    read_until,
    served,
    server_frames,
)

from trio_swarm.edge import worker
from trio_swarm.edge.direct import DirectTransport
from trio_swarm.edge.polite import PoliteAsgi, PoliteDirect, make_transport
from trio_swarm.edge.protocol import HostProtocol
from trio_swarm.edge.transport import AsgiTransport
from trio_swarm.edge.worker import KEY
from trio_swarm.edge.writability import Writability
from trio_swarm.settings import Limits

PEM = str(Path(__file__).with_name("localhost.pem"))
HEADERS = [(b"content-type", b"text/event-stream")]


class App:
    """An application that notes what becomes of it; `body(app, scope, receive, send)` is what it does."""

    def __init__(self, body):
        self.body = body
        self.events = []
        self.connection = None
        self.transport = None

    async def __call__(self, scope, receive, send):
        self.connection = scope["state"][KEY]
        self.events.append("begun")
        end = "cancelled"
        try:
            await self.body(self, scope, receive, send)
            end = "returned"
        except Exception:
            end = "raised"
            raise
        finally:
            self.events.append(end)

    async def ended(self):
        return (await eventually(lambda: self.events[1:]))[-1]


async def hello(app, scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def quiet_stream(app, scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    app.connection.streaming()
    while (await receive())["type"] != "http.disconnect":
        pass


async def flood(app, scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    while True:
        await send({"type": "http.response.body", "body": bytes(50_000), "more_body": True})


async def websocket_until_left(app, scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def direct(size=None, then=None):
    """A stream, or a WebSocket, with a direct transport; `then` is what follows."""

    async def body(app, scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            app.connection.streaming()
        else:
            await receive()
            await send({"type": "websocket.accept"})
        async with trio.open_nursery() as nursery:
            writability = Writability()
            await nursery.start(writability.run)
            app.transport = DirectTransport(app.connection, writability)
            if then is not None:
                await then(app, receive, send)
            else:
                while not (await receive())["type"].endswith(".disconnect"):
                    pass
            nursery.cancel_scope.cancel()

    return body


async def open_websocket(port, **options):
    stream = await connect(port, **options)
    await stream.send_all(UPGRADE % b"")
    answer = await read_until(stream, b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101")
    return stream, answer.partition(b"\r\n\r\n")[2]


# Clocks


@pytest.mark.parametrize("drip", [b"", b"G"])
async def test_a_head_that_does_not_come_ends_the_connection(drip):
    """Neither silence nor a drip of bytes holds a connection longer than the time for a head."""
    async with served(App(hello), header_s=0.2) as server, await connect(server.port) as stream:
        with trio.fail_after(60):
            try:
                while True:
                    with trio.move_on_after(0.05):
                        if not await stream.receive_some():
                            break
                    if drip:
                        await stream.send_all(drip)
            except trio.BrokenResourceError:
                pass


async def test_a_body_that_does_not_come_ends_the_connection_and_its_application():
    """The application that waits for the rest of a body is cancelled."""

    async def waits(app, scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass

    app = App(waits)
    async with served(app, body_s=0.2) as server, await connect(server.port) as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nabc")
        assert await read_to_end(stream) == b""
        assert await app.ended() == "cancelled"


async def test_a_connection_is_used_again_and_ends_after_its_pause():
    """Keep-alive: two requests, pipelined ones too, are answered on one connection; an idle one ends."""
    async with served(App(hello), keep_alive_s=0.2, header_s=5) as server, await connect(server.port) as stream:
        await stream.send_all(GET % b"/")
        await read_until(stream, b"hello")
        await stream.send_all(GET % b"/" + GET % b"/")
        assert (await read_to_end(stream)).count(b"hello") == 2


async def test_a_stream_outlives_every_clock():
    """Neither the time for a head nor for a body nor for a pause ends a stream that is open."""
    app = App(quiet_stream)
    async with (
        served(app, header_s=0.1, body_s=0.1, keep_alive_s=0.1, stall=0.1) as server,
        await connect(server.port) as stream,
    ):
        await stream.send_all(GET % b"/")
        await read_until(stream, b"\r\n\r\n")
        await trio.sleep(0.4)
        assert app.events == ["begun"]


async def test_an_idle_connection_ends_with_the_serving():
    """A shutdown does not wait for connections between two requests; nor, after `closing_s`, for ones without any."""
    async with (
        served(App(hello), closing_s=0.2) as server,
        await connect(server.port) as silent,
        await connect(server.port) as used,
    ):
        await used.send_all(GET % b"/")
        await read_until(used, b"hello")
        server.stop.set()
        with trio.fail_after(60):
            await server.over.wait()
        assert await read_to_end(silent) == b""
        assert await read_to_end(used) == b""


async def test_the_application_is_told_of_the_end_of_the_serving():
    """`on_context` gives the context once; its `terminated` is set when the serving ends, before the grace is over."""
    contexts = []

    async def until_terminated(app, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await contexts[0].terminated.wait()
        await send({"type": "http.response.body", "body": b"goodbye"})

    app = App(until_terminated)
    async with served(app, on_context=contexts.append) as server:
        async with await connect(server.port) as stream, await connect(server.port):
            await stream.send_all(GET % b"/")
            await read_until(stream, b"\r\n\r\n")
            server.stop.set()
            assert b"goodbye" in await read_to_end(stream)
        assert len(contexts) == 1
    assert app.events == ["begun", "returned"]


# Ends


async def test_a_byte_on_an_open_stream_aborts_it():
    """Nothing may follow a stream's request: the application is cancelled, not left with bytes that nobody reads."""
    app = App(quiet_stream)
    async with served(app) as server, await connect(server.port) as stream:
        await stream.send_all(GET % b"/")
        await read_until(stream, b"\r\n\r\n")
        await stream.send_all(b"x")
        assert await app.ended() == "cancelled"
        assert server.connection_class.statistics().aborted == {"bytes behind a stream's request": 1}


async def test_a_flood_behind_the_last_request_is_a_client_that_left():
    """What may not count is read and dropped, but not without end; the application is told, as of any other end."""

    async def waits(app, scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass

    app = App(waits)
    async with served(app) as server, await connect(server.port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        with trio.fail_after(PATIENCE), pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(1 << 16))
        assert await app.ended() == "returned"
        assert server.connection_class.statistics().aborted == {}


async def test_a_stream_that_asked_for_an_upgrade_notices_its_client_leave():
    """h11 pauses after an `Upgrade` that is not taken (curl --http2 sends one): the reader reads on all the same."""

    async def later(app, scope, receive, send):
        await trio.sleep(0.05)  # the answer decides what h11 makes of the upgrade: the reader is to be there first
        await quiet_stream(app, scope, receive, send)

    app = App(later)
    async with served(app) as server:
        async with await connect(server.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
            await read_until(stream, b"\r\n\r\n")
        assert await app.ended() == "returned"


async def test_bytes_between_an_upgrade_and_its_acceptance_end_that_connection_alone():
    """The application has not accepted yet: it is cancelled, and the server goes on."""

    async def never_accepts(app, scope, receive, send):
        if scope["type"] == "http":
            await hello(app, scope, receive, send)
        else:
            await trio.sleep_forever()

    app = App(never_accepts)
    async with served(app) as server:
        async with await connect(server.port) as stream:
            await stream.send_all(UPGRADE % b"")
            await eventually(lambda: app.events)
            await stream.send_all(client_frame(1, b"early"))
            assert await app.ended() == "cancelled"
        assert await get(server.port, b"/") == b"hello"


async def test_an_exception_inside_a_connection_stops_at_its_barrier(monkeypatch):
    """Whatever the connection's own code raises is logged and ends that connection alone."""
    once = iter([True])
    handle = HostProtocol.handle

    async def fails_once(self, event):
        if next(once, False):
            raise RuntimeError("planted")
        await handle(self, event)

    monkeypatch.setattr(HostProtocol, "handle", fails_once)
    with capture_logs() as logs:
        async with served(App(hello)) as server:
            async with await connect(server.port) as stream:
                await stream.send_all(GET % b"/")
                assert await read_to_end(stream) == b""
            assert await get(server.port, b"/") == b"hello"
    assert "connection_crashed" in [entry["event"] for entry in logs]


async def test_a_cancelled_write_aborts_the_connection():
    """What was cancelled may be half out: nothing may follow it."""

    async def gives_up(app, scope, receive, send):
        with trio.move_on_after(0.2):
            await flood(app, scope, receive, send)
        await trio.sleep_forever()

    app = App(gives_up)
    async with served(app) as server, await connect(server.port, receive_buffer=4096) as stream:
        await stream.send_all(GET % b"/")
        assert await app.ended() == "cancelled"
        assert server.connection_class.statistics().aborted == {"a write was cancelled": 1}


async def test_a_stalled_write_aborts_although_the_application_shields_it():
    """A shield around `send` holds nothing: the write's own deadline is inside it."""

    async def shields(app, scope, receive, send):
        with trio.CancelScope(shield=True):
            await flood(app, scope, receive, send)

    app = App(shields)
    async with served(app, stall=0.3) as server, await connect(server.port, receive_buffer=4096) as stream:
        await stream.send_all(GET % b"/")
        assert await eventually(lambda: server.connection_class.statistics().aborted) == {"stalled": 1}
        await stream.aclose()


async def test_an_application_that_does_not_read_is_cancelled_when_its_client_has_left():
    """Its inbox is full, so the news would wait for ever: stock Hypercorn keeps the connection then."""

    async def deaf(app, scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await trio.sleep_forever()

    app = App(deaf)
    async with served(app) as server:
        stream, _ = await open_websocket(server.port)
        async with stream:
            await stream.send_all(client_frame(1, b"x") * 10)
            await trio.sleep(0.1)
        assert await app.ended() == "cancelled"


async def test_the_descriptor_of_a_client_that_left_does_not_wait_for_its_application():
    """The socket is closed at once; an application that has not ended after the stall limit is cancelled."""

    async def goes_on(app, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await trio.sleep_forever()

    app = App(goes_on)
    async with served(app, stall=0.5) as server:
        async with await connect(server.port) as stream:
            await stream.send_all(GET % b"/")
            await read_until(stream, b"\r\n\r\n")
        assert await eventually(lambda: app.connection.fileno() == -1)
        assert app.events == ["begun"]
        assert await app.ended() == "cancelled"
        expected = {"the application did not end": 1}  # counted when all of it is over
        assert await eventually(lambda: server.connection_class.statistics().aborted == expected)


async def test_an_answer_before_the_body_reaches_its_client_and_ends_the_connection():
    """413 while the client still sends: the rest is read and dropped, so that no reset takes the answer away."""

    async def refuses(app, scope, receive, send):
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async with served(App(refuses)) as server, await connect(server.port) as stream:
        async with trio.open_nursery() as nursery:
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2000000\r\n\r\n")
            nursery.start_soon(stream.send_all, bytes(1_000_000))
            assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        await stream.send_eof()
        assert await read_to_end(stream) == b""


@pytest.mark.parametrize("begun", [False, True], ids=["before the answer", "inside the answer"])
async def test_a_request_that_breaks_off_does_not_tear_its_answer(begun):
    """A chunk that is none is refused in one piece, whatever the application says then; an answer begun comes whole."""
    proceed = trio.Event()

    async def answers(app, scope, receive, send):
        if not begun:
            await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await proceed.wait()
        await send({"type": "http.response.body", "body": b"told"})

    async with served(App(answers)) as server, await connect(server.port) as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        head = await read_until(stream, b"\r\n\r\n") if begun else b""
        await stream.send_all(b"no chunk\r\n")
        await trio.testing.wait_all_tasks_blocked(0.05)
        proceed.set()
        answer = head + await read_to_end(stream)
    if begun:
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"\r\n\r\ntold")
    else:
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.endswith(b'"}}')


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (client_frame(1, b"\xff\xff"), 1007),
        (client_frame(1, b"x" * 2000), 1009),
        (b"\x83\x80\0\0\0\0", 1002),
    ],
    ids=["bad UTF-8", "too large", "unknown opcode"],
)
async def test_a_websocket_that_breaks_the_rules_is_closed_with_its_code_and_the_application_is_told(frame, code):
    """Bad UTF-8, a message too large, an unknown opcode."""
    app = App(websocket_until_left)
    async with served(app, limits=Limits(message_bytes=1000)) as server:
        stream, rest = await open_websocket(server.port)
        async with stream:
            await stream.send_all(frame)
            frames = server_frames(rest + await read_to_end(stream))
        assert [(8, code)] == [(opcode, int.from_bytes(payload[:2], "big")) for opcode, payload in frames]
        assert await app.ended() == "returned"


async def test_beyond_the_limit_connections_are_refused():
    """There are a few more than the limit for short requests, and then no more."""
    app = App(quiet_stream)
    async with served(app, limits=Limits(connections=4)) as server:
        most = 4 + 16
        streams = [await connect(server.port) for _ in range(most)]
        for stream in streams:
            await stream.send_all(GET % b"/")
            await read_until(stream, b"\r\n\r\n")
        async with await connect(server.port) as late:
            assert await read_to_end(late) == b""
        statistics = server.connection_class.statistics()
        assert (statistics.connections, statistics.refused) == (most, 1)
        for stream in streams:
            await stream.aclose()


async def test_a_connection_that_ended_leaves_nothing():
    """However it ends, it goes with its last reference, and its tasks before: nothing waits for the collector."""
    seen = weakref.WeakSet()

    async def notes(app, scope, receive, send):
        seen.add(app.connection)
        app.connection = None
        if scope["path"] == "/flood":
            await flood(app, scope, receive, send)
        await hello(app, scope, receive, send)

    async with served(App(notes), stall=0.2) as server:
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        gc.collect()
        gc.disable()
        try:
            await get(server.port, b"/")
            async with await connect(server.port) as stream:
                await stream.send_all(GET % b"/flood")
                await trio.sleep(0.05)

            def gone():
                return not seen and trio.lowlevel.current_statistics().tasks_living == before

            assert await eventually(gone)
        finally:
            gc.enable()
        assert server.connection_class.statistics().connections == 0


# The direct transport on a real connection


async def test_hypercorns_pongs_and_closes_never_land_inside_a_direct_frame():
    """A flood of frames, written in pieces, with pings answered between them: every frame arrives whole."""
    total = 60

    async def writes(app, receive, send):
        async with trio.open_nursery() as nursery:

            async def listen():
                while (await receive())["type"] != "websocket.disconnect":
                    pass

            nursery.start_soon(listen)
            for number in range(total):
                payload = b"%06d" % number + bytes(60_000)
                await app.transport.send(b"\x81\x7f" + len(payload).to_bytes(8, "big") + payload)
            await send({"type": "websocket.close", "code": 1001})
            nursery.cancel_scope.cancel()

    app = App(direct(then=writes))
    async with served(app) as server:
        stream, data = await open_websocket(server.port, receive_buffer=8192)
        data = bytearray(data)
        async with stream:
            with trio.fail_after(20):
                while piece := await stream.receive_some(50_000):
                    data += piece
                    if len(data) < 2_000_000:
                        await stream.send_all(client_frame(9, b"%d" % len(data)))
        frames = server_frames(bytes(data))
        texts = [payload[:6] for opcode, payload in frames if opcode == 1]
        assert [b"%06d" % number for number in range(total)] == texts
        assert len([1 for opcode, _ in frames if opcode == 10]) > 5
        assert frames[-1] == (8, (1001).to_bytes(2, "big"))
        assert app.transport.closed
        assert server.connection_class.statistics().aborted == {}


async def test_after_hypercorns_close_frame_nothing_is_written_directly():
    """A client that closes is answered by Hypercorn: from then the transport is closed."""
    app = App(direct())
    async with served(app) as server:
        stream, _ = await open_websocket(server.port)
        async with stream:
            await eventually(lambda: app.transport)
            app.transport.write(b"\x81\x01a")
            await stream.send_all(client_frame(8, (1000).to_bytes(2, "big")))
            data = await read_to_end(stream)
        assert app.transport.closed
        app.transport.write(b"\x81\x01b")
        assert [(1, b"a"), (8, (1000).to_bytes(2, "big"))] == server_frames(data)


async def test_a_peer_that_never_answers_a_close_is_cut_off():
    """A closing handshake has its time, although the application goes on waiting."""

    async def closes(app, receive, send):
        await send({"type": "websocket.close", "code": 1001})
        assert app.transport.closed
        await trio.sleep_forever()

    app = App(direct(then=closes))
    async with served(app, closing_s=0.2) as server:
        stream, rest = await open_websocket(server.port)
        async with stream:
            assert server_frames(rest + await read_to_end(stream))[0][0] == 8
        assert await app.ended() == "cancelled"


async def test_at_the_end_of_a_response_the_transport_closes_and_the_body_is_whole():
    """Direct chunks, then Hypercorn's last chunk: a body that any client can read."""

    async def ends(app, receive, send):
        await app.transport.send(b"3\r\nabc\r\n")
        await app.transport.send(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        assert app.transport.closed

    app = App(direct(then=ends))
    async with served(app, keep_alive_s=0.1) as server, await connect(server.port, receive_buffer=4096) as stream:
        await stream.send_all(GET % b"/")
        body = (await read_to_end(stream)).partition(b"\r\n\r\n")[2]
        assert body == b"3\r\nabc\r\n186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n"
        assert await app.ended() == "returned"


async def test_an_abort_after_the_goodbye_does_not_take_it_back():
    """What the client has not read yet of an answer that is over still comes, and then the end: no reset."""

    async def ends(app, receive, send):
        await app.transport.send(b"1f40\r\n" + b"x" * 8_000 + b"\r\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        app.connection.abort("lagged")

    app = App(direct(then=ends))
    async with served(app) as server, await connect(server.port, receive_buffer=2048) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        await app.ended()
        data = b""
        with trio.fail_after(PATIENCE):
            while piece := await stream.receive_some():
                data += piece
        assert data.partition(b"\r\n\r\n")[2] == b"1f40\r\n" + b"x" * 8_000 + b"\r\n0\r\n\r\n"
        assert server.connection_class.statistics().aborted == {"lagged": 1}


async def test_a_failed_direct_write_ends_the_application():
    """A peer that reset the connection: the next direct write aborts, the application is cancelled."""

    async def sleeps(app, receive, send):
        await trio.sleep_forever()

    app = App(direct(then=sleeps))
    async with served(app) as server:
        async with await connect(server.port) as stream:
            await stream.send_all(GET % b"/")
            await read_until(stream, b"\r\n\r\n")
            await eventually(lambda: app.transport)
            app.transport.abort("stalled")
        assert await app.ended() == "cancelled"
        assert app.transport.closed_by == "stalled"
        assert server.connection_class.statistics().aborted == {"stalled": 1}


async def test_hypercorns_wait_for_its_turn_counts_against_its_deadline():
    """A client that stopped reading in the middle of a direct frame: the pong that waits behind it stalls."""

    async def fills(app, receive, send):
        while app.transport.ready:
            app.transport.write(b"\x81\x7e\xff\xff" + bytes(65535))
        await trio.sleep_forever()

    app = App(direct(then=fills))
    async with served(app, stall=0.3) as server:
        stream, _ = await open_websocket(server.port, receive_buffer=4096)
        async with stream:
            await eventually(lambda: app.transport is not None and app.transport.outstanding)
            await stream.send_all(client_frame(9))
            assert await app.ended() == "cancelled"
        assert server.connection_class.statistics().aborted == {"stalled": 1}


async def test_a_connection_says_when_a_direct_transport_may_begin():
    """Before the head is out its bytes would come first."""
    seen = []

    async def asks(app, scope, receive, send):
        seen.append(app.connection.begun)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        seen.append(app.connection.begun)
        assert isinstance(make_transport(scope, send, "sse", Writability()), PoliteDirect)
        await send({"type": "http.response.body", "body": b"hello"})

    async with served(App(asks)) as server:
        await get(server.port, b"/")
        assert [False, True] == seen


async def test_the_time_of_the_last_byte_follows_what_hypercorn_swallows():
    """A pong never reaches the application; the connection and its transport know of it."""
    app = App(direct())
    async with served(app) as server:
        stream, _ = await open_websocket(server.port)
        async with stream:
            await eventually(lambda: app.transport)
            before = app.transport.last_byte_at
            await stream.send_all(client_frame(10))
            assert await eventually(lambda: app.transport.last_byte_at > before)
            assert app.connection.client[0] == "127.0.0.1"


# TLS


@pytest.mark.parametrize("configured_by", ["us", "hypercorn"])
async def test_our_tls_speaks_http11_only_and_writes_through_asgi(configured_by, monkeypatch):
    """A client that would rather have HTTP/2 gets HTTP/1.1; no direct transport there, and the portable one works."""

    async def body(app, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        app.connection.streaming()
        assert isinstance(make_transport(scope, send, "sse", Writability()), PoliteAsgi)
        transport = AsgiTransport(send, "sse", app.connection)
        async with trio.open_nursery() as nursery:
            await nursery.start(transport.run)
            await transport.send(b"data: 1\n\n")
            await transport.drained()
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})

    if configured_by == "hypercorn":  # whose TLS context offers HTTP/2
        monkeypatch.setattr(worker, "tighten", lambda config, _: config)
    context = ssl.create_default_context(cafile=PEM)
    context.set_alpn_protocols(["h2", "http/1.1"])
    app = App(body)
    async with served(app, tls=PEM) as server:
        raw = await connect(server.port)
        stream = trio.SSLStream(raw, context, server_hostname="localhost", https_compatible=True)
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = await read_to_end(stream)
            assert stream.selected_alpn_protocol() == "http/1.1"
        assert answer.endswith(b"\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n")
        assert await app.ended() == "returned"
        async with await connect(server.port) as other:
            await other.send_all(b"not a handshake")
            assert b"HTTP" not in await read_to_end(other)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("upload", [0, 3 << 20], ids=["request", "refused upload"])
async def test_an_end_over_tls_is_told_apart_from_a_cut(version, upload):
    """The answer ends in TLS's own goodbye, also while bytes still come that nobody wants; they do not destroy it."""

    async def refuse(app, scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"too much" * 10_000})

    context = ssl.create_default_context(cafile=PEM)
    context.maximum_version = version
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % upload
    async with served(App(refuse), tls=PEM) as server:
        stream = trio.SSLStream(await connect(server.port), context, server_hostname="localhost")
        await stream.send_all(head)
        for _ in range(0, upload, 64 * 1024):
            await stream.send_all(bytes(64 * 1024))
        said = b""
        with trio.fail_after(PATIENCE):
            while part := await stream.receive_some():  # raises where the goodbye is missing
                said += part
        assert 10_000 == said.count(b"too much")
        with trio.fail_after(PATIENCE):
            await trio.aclose_forcefully(stream)
            await eventually(lambda: not server.connection_class.statistics().connections)
        assert {} == server.connection_class.statistics().aborted
