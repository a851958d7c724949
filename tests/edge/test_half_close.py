"""Clients that end their half of the connection behind a request: `docs/deadlines.md`, "Half a close"."""

import pytest
import trio
from edge_service import open_service, quick, until
from test_edge_endings import EVENTS, UPGRADE
from worker_rig import read_to_end, read_until

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
CALL = b"POST /v1/room/a/call/%b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
WAYS = pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])


async def answer(service, request):
    """What comes when this is sent and our half is closed, as in a shell's pipe."""
    async with await service.connect() as stream:
        await stream.send_all(request)
        await stream.send_eof()
        return await read_to_end(stream)


async def test_a_request_is_answered():
    """And the connection, on which nothing more can be asked, ends at once: not after the pause for a next request."""
    async with open_service(quick(keep_alive_s=60.0)) as service:
        with trio.fail_after(60):
            said = await answer(service, HEALTH)
        assert said.startswith(b"HTTP/1.1 200")
        assert said.endswith(b'{"status":"ok"}')
        assert {} == service.connection_class.statistics().aborted


async def test_every_one_of_several_requests_is_answered():
    """They were all whole."""
    async with open_service() as service:
        assert 3 == (await answer(service, HEALTH * 3)).count(b'{"status":"ok"}')


async def test_work_that_takes_a_moment_is_answered():
    """A call waits for its turn, and is answered when it is done."""
    async with open_service() as service:
        assert (await answer(service, CALL % (b"wait", 5, b"[0.1]"))).endswith(b'{"result":"waited"}')


async def test_an_answer_that_has_begun_is_written_to_its_end():
    """However long that takes: this one is read later than it might have begun."""
    async with open_service(quick(closing_s=0.1)) as service:
        await service.room().say("", "x" * 50_000, 20)
        async with await service.connect() as stream:
            await stream.send_all(b"GET /v1/room/a/history HTTP/1.1\r\nhost: x\r\n\r\n")
            await stream.send_eof()
            await trio.sleep(0.5)
            whole = await read_to_end(stream)
        assert whole.count(b'"id"') == 20
        assert whole.endswith(b'"gap":false}')


async def test_a_request_that_is_not_whole_is_the_end():
    """Nothing of it can come any more."""
    async with open_service() as service:
        for part in (b"GET /healthz HT", (CALL % (b"double", 5, b"[1]"))):
            with trio.fail_after(60):
                assert b"" == await answer(service, part)
        assert await service.room().count() == 0


@WAYS
async def test_a_stream_and_a_websocket_end(foreign):
    """A tab of a browser that closes is half a close to us: the place is free at once."""
    async with open_service(quick(closing_s=60.0), foreign=foreign) as service:
        for request in (EVENTS % b"room", UPGRADE):
            async with await service.connect() as stream:
                await stream.send_all(request)
                await read_until(stream, b"\r\n\r\n")
                await until(lambda: len(service.edge.clients) == 1)
                await stream.send_eof()
                await until(lambda: len(service.edge.clients) == 0)
                await until(lambda: not service.connection_class.statistics().connections)
