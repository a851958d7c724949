"""How clients end: stalled, silent, lagged, and at the shutdown; `docs/protocol.md`, "How a stream ends"."""

import socket
from contextlib import AsyncExitStack

import attrs
import pytest
import structlog
import trio
from edge_service import PATIENCE_S, open_service, quick, until
from test_edge_websocket import closing_code, masked, raw_websocket

from trio_swarm.settings import JournalSettings, LivenessSettings, Settings, StallSettings

FOREIGN = pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])
STALL = attrs.evolve(Settings(), stall=StallSettings(seconds=0.3, bytes_per_s=100_000))


async def deaf(service, request):
    """A client that sends a request and has room for next to nothing of the answer."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    await sock.connect((service.host, service.port))
    stream = trio.SocketStream(sock)
    await stream.send_all(request)
    return stream


async def deaf_websocket(service, kind):
    stream = await deaf(service, UPGRADE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive_some(1)
    await stream.send_all(masked(1, b'{"type":"subscribe","data":{"stream":"%b/a"}}' % kind.encode()))
    return stream


EVENTS = b"GET /v1/%b/a/events HTTP/1.1\r\nhost: x\r\n\r\n"
UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@FOREIGN
async def test_a_stalled_client_is_cut_off_and_the_others_are_not(foreign):
    """After `stall.seconds` without progress; it is gone from everywhere, and counted."""
    async with (
        open_service(STALL, foreign=foreign, host=Settings()) as service,
        service.sse("/v1/room/a/events") as sse,
        await deaf(service, EVENTS % b"room") as stream,
    ):
        await sse.next()
        await until(lambda: service.edge.statistics().sse == 2)
        sent = 0
        while service.edge.statistics().sse == 2:
            await service.room().say("", [sent, "x" * 90_000])
            [[n, _]] = await sse.data(1)
            assert n == sent
            sent += 1
            await trio.sleep(0.002)
        assert {"stalled": 1} == service.edge.statistics().ended
        assert service.swarm.streams.get("room/a").subscribers == 1
        with trio.fail_after(PATIENCE_S), pytest.raises(trio.BrokenResourceError):
            while True:
                assert await stream.receive_some()
        await service.room().say("", "still here")
        assert await sse.data(1) == ["still here"]


@FOREIGN
async def test_a_stalled_websocket_is_cut_off(foreign):
    """No close can reach it: it is aborted."""
    async with open_service(STALL, foreign=foreign, host=Settings()) as service, await deaf_websocket(service, "room"):
        await until(lambda: (s := service.swarm.streams.get("room/a")) is not None and s.subscribers)
        while len(service.edge.clients):
            await service.room().say("", "x" * 90_000)
            await trio.sleep(0.002)
        assert {"stalled": 1} == service.edge.statistics().ended


@FOREIGN
async def test_a_silent_websocket_is_closed_with_4001(foreign):
    """It is pinged; 30 s (here 1) without a byte is dead, an answer is life."""
    async with open_service(quick(ping_s=0.05, dead_s=1.0), foreign=foreign) as service:
        async with service.ws() as alive, await raw_websocket(service) as silent:
            assert await closing_code(silent) == 4001
            if foreign:
                ping = await alive.next()
                assert ping == {"type": "ping"}
        await until(lambda: len(service.edge.clients) == 0)


async def test_pings_are_frames_and_pongs_are_life():
    """A client that answers pings, as every WebSocket client does, stays."""
    async with open_service(quick(ping_s=0.05, dead_s=1.0)) as service, service.ws() as ws:  # on a busy machine, too
        await trio.sleep(1.5)
        assert await ws.ask(type="ping") == {"type": "pong"}
        assert service.edge.statistics().ended == {}


@FOREIGN
async def test_the_shutdown_tells_everyone_when_to_come_back(foreign):
    """SSE: `retry` and an orderly end. WebSocket: 1001 and `retry_ms`. Spread over 1 to 10 s."""
    async with open_service(foreign=foreign) as service:
        async with (
            service.sse("/v1/room/a/events") as one,
            service.sse("/v1/room/a/events") as two,
            service.ws() as ws,
        ):
            await one.next()
            await two.next()
            await ws.subscribe("room/a")
            service.shutdown.set()
            assert [None, None] == [await one.next(), await two.next()]
            assert one.retry != two.retry
            code, reason, came = await ws.closed()
            assert (1001, []) == (code, came)
            words, _, retry = reason.partition("; retry_ms=")
            assert words == "shutting down"
            assert all(1_000 <= ms <= 10_000 for ms in (one.retry, two.retry, int(retry)))
        with trio.fail_after(PATIENCE_S):
            await service.over.wait()


@FOREIGN
async def test_a_call_over_a_websocket_is_waited_for(foreign):
    """One under way as the shutdown begins is answered before its client is told goodbye."""
    async with open_service(foreign=foreign) as service, service.ws() as ws:
        await ws.send(type="call", messageId="1", data={"stream": "room/a", "method": "wait", "arguments": [0.2]})
        await until(service.swarm.directory.hosts)
        service.shutdown.set()
        code, _, came = await ws.closed()
        assert (1001, [{"type": "result", "messageId": "1", "data": {"result": "waited"}}]) == (code, came)


@FOREIGN
async def test_a_change_over_a_websocket_is_refused_once_the_shutdown_has_begun(foreign):
    """Readers that have been told goodbye would not see it; here they wait for a call."""
    publication = {"stream": "room/a", "data": 1}
    call = {"stream": "room/a", "method": "count"}
    async with (
        open_service(quick(shutdown_s=10.0), foreign=foreign) as service,
        service.ws() as busy,
        service.ws() as ws,
    ):
        await busy.send(type="call", data={"stream": "room/b", "method": "wait", "arguments": [1.0]})
        await until(service.swarm.directory.hosts)
        service.shutdown.set()
        await until(lambda: not service.edge.accepting)
        await ws.send(type="publish", messageId="1", data=publication)
        await ws.send(type="call", messageId="2", data=call)
        code, _, came = await ws.closed()
        refused = [(each["type"], each["messageId"], each["code"]) for each in came]
        assert (1001, [("error", "1", "shutting_down"), ("error", "2", "shutting_down")]) == (code, refused)
        assert service.swarm.streams.get("room/a") is None


async def test_a_connection_whose_first_request_is_on_its_way_is_answered():
    """One made just before the shutdown: streams and changes are refused in words; with each answer it is closed."""
    async with (
        open_service() as service,
        service.http() as stream,
        service.http() as change,
        service.http() as other,
    ):
        await until(lambda: service.connection_class.statistics().connections == 3)
        service.shutdown.set()
        await until(lambda: not service.edge.accepting)
        for http, method, path, status in [
            (stream, "GET", "/v1/room/a/events", 503),
            (change, "POST", "/v1/room/a/call/count", 503),
            (other, "GET", "/healthz", 200),
        ]:
            await http.request(method, path)
            response = await http.response()
            said = await http.body()
            assert (status, b"close") == (response.status_code, dict(response.headers)[b"connection"])
            assert (b"shutting_down" in said) == (status == 503)


@FOREIGN
async def test_a_shutdown_among_clients_that_do_not_read_is_over_in_time(foreign):
    """Whoever does not take its goodbye is ended by force, within `shutdown_s`."""
    settings = attrs.evolve(Settings(), liveness=LivenessSettings(shutdown_s=1.0))
    async with AsyncExitStack() as clients, open_service(settings, foreign=foreign) as service:
        for _ in range(10):
            await clients.enter_async_context(await deaf(service, EVENTS % b"room"))
            await clients.enter_async_context(await deaf_websocket(service, "room"))
        await until(lambda: (s := service.swarm.streams.get("room/a")) is not None and s.subscribers == 20)
        while service.edge.statistics().blocked < 20:
            await service.room().say("", "x" * 90_000)
            await trio.sleep(0.001)
        began = trio.current_time()
        service.shutdown.set()
        with trio.fail_after(PATIENCE_S):
            await service.over.wait()
        assert trio.current_time() - began < 5.0


@FOREIGN
async def test_who_falls_behind_a_strict_class_is_sent_away_with_4002(foreign):
    """It is there and reads again: it is told to come back."""
    async with open_service(attrs.evolve(Settings(), journal=JournalSettings(events=5)), foreign=foreign) as service:
        async with await deaf_websocket(service, "strict") as stream, await deaf(service, EVENTS % b"strict") as sse:
            await until(lambda: (s := service.swarm.streams.get("strict/a")) is not None and s.subscribers == 2)
            while service.edge.statistics().blocked < 2:
                await service.publish("x" * 90_000, kind="strict")
                await trio.sleep(0.001)
            for _ in range(10):
                await service.publish("x" * 90_000, kind="strict")
            for each in (stream, sse):
                each.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # now they hurry
            tail = b""

            async def read_events():
                nonlocal tail
                while part := await sse.receive_some():
                    tail = (tail + part)[-100:]

            with trio.fail_after(PATIENCE_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read_events)
                    assert await closing_code(stream) == 4002
            assert tail.endswith(b"\r\n0\r\n\r\n")
        await until(lambda: len(service.edge.clients) == 0)


async def test_to_abort_twice_is_to_abort_once():
    """Aborting, leaving and counting are idempotent for a client."""
    async with open_service() as service, service.sse("/v1/room/a/events") as sse:
        await sse.next()
        [client] = service.edge.clients
        client.abort("test")
        client.abort("test")
        await until(lambda: len(service.edge.clients) == 0)
        client.leave()
        client.abort("test")
        service.edge.clients.leave(client)
        assert service.swarm.streams.get("room/a").subscribers == 0


@FOREIGN
async def test_two_goodbyes_at_once_are_one(foreign):
    """The host's end and the lifespan's, both at a stream: it is told once when to come back, and ended once."""
    with structlog.testing.capture_logs() as log:
        async with open_service(foreign=foreign) as service, await service.connect() as stream:
            await stream.send_all(EVENTS % b"room")
            seen = b""
            while b"event: hello" not in seen:
                seen += await stream.receive_some()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.edge.drain)
                nursery.start_soon(service.edge.drain)
                with trio.fail_after(PATIENCE_S):
                    while part := await stream.receive_some():
                        seen += part
        assert (1, True) == (seen.count(b"retry: "), seen.endswith(b"\r\n0\r\n\r\n"))
    assert [] == [entry for entry in log if entry["log_level"] == "error"]


async def test_two_closes_at_once_are_one():
    """Messages that cannot be read and the client's own close in one piece: whoever is first, nothing is logged."""
    with structlog.testing.capture_logs() as log:
        async with open_service() as service:
            for count in range(10, 40):
                async with await raw_websocket(service) as stream:
                    await stream.send_all(masked(1, b"nonsense") * count + masked(8, b"\x03\xe8"))
                    with trio.fail_after(PATIENCE_S):
                        assert await closing_code(stream) in {1000, 4500}
            await until(lambda: len(service.edge.clients) == 0)
    assert [] == [entry for entry in log if entry["log_level"] == "error"]
