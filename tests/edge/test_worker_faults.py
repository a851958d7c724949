"""The faults of stock Hypercorn: each is shown on the stock class, in a child under a guard, and ours passes."""

import zlib

import trio
from worker_rig import GET, PATIENCE, UPGRADE, both, client_frame, connect, get, read_to_end, read_until, server_frames


async def test_a_byte_behind_the_upgrade_request_ends_the_stock_worker_and_not_ours():
    """One byte sent right behind an upgrade request: the stock worker dies; ours refuses it and serves on."""

    async def scenario(host):
        async with await connect(host.port) as stream:
            await stream.send_all(UPGRADE % b"" + b"\x81")
            answer = await read_to_end(stream)
        dead = await host.is_over(5.0 if host.kind == "stock" else 0.2)
        return dead, answer, dead or await get(host.port, b"/hello")

    stock, ours = await both(scenario)
    assert stock[0]
    assert not ours[0]
    assert ours[1].startswith(b"HTTP/1.1 400")
    assert ours[2] == b"hello"


async def test_a_client_that_stops_reading_holds_the_stock_task_and_not_ours():
    """A client that stops reading: the stock task is held by its shielded send; ours ends after the stall time."""

    async def scenario(host):
        async with await connect(host.port, receive_buffer=4096) as stream:
            await stream.send_all(GET % b"/flood")
            await read_until(stream, b"\r\n\r\n")
            return await host.is_quiet(host.patience)

    assert await both(scenario, stall=0.3) == (False, True)


async def test_a_pipelined_request_and_a_silent_disconnect_hold_the_stock_task_and_not_ours():
    """A second request behind a stream, then the client goes: the parked stock reader never sees it; ours aborts."""

    async def scenario(host):
        async with await connect(host.port) as stream:
            await stream.send_all(GET % b"/stream" + GET % b"/hello")
            await read_until(stream, b"\r\n\r\n")
        return await host.is_quiet(host.patience)

    assert await both(scenario) == (False, True)


async def test_a_deflate_bomb_fills_the_memory_of_the_stock_worker_and_not_of_ours():
    """64 KB on the wire become 64 MB in the stock worker; ours negotiates no compression and refuses the frame."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(64 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    bomb = bomb.removesuffix(b"\0\0\xff\xff")
    assert len(bomb) < 70_000

    async def scenario(host):
        before = (await host.stats())["peak_mib"]
        async with await connect(host.port) as stream:
            await stream.send_all(UPGRADE % b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
            head, _, rest = (await read_until(stream, b"\r\n\r\n")).partition(b"\r\n\r\n")
            await stream.send_all(client_frame(0x1, bomb, first_bits=0xC0))
            with trio.fail_after(PATIENCE):  # stock answers with the length it has inflated, ours with a close
                while len(rest) < 2 or len(rest) < 2 + rest[1]:
                    piece = await stream.receive_some()
                    if not piece:
                        break
                    rest += piece
        return b"permessage-deflate" in head, (await host.stats())["peak_mib"] - before, rest

    stock, ours = await both(scenario)
    assert stock[0]
    assert stock[1] > 50
    assert not ours[0]
    assert ours[1] < 10
    assert server_frames(ours[2])[0][1][:2] == (1002).to_bytes(2, "big")


async def test_the_h2c_upgrade_and_prior_knowledge_reach_http2_in_the_stock_worker_and_not_in_ours():
    """Cleartext HTTP/2 has no backpressure there: ours answers the upgrade in HTTP/1.1 and refuses the preface."""
    upgrade = (
        b"GET /hello HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings, close\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"

    async def scenario(host):
        answers = []
        for request in (upgrade, preface):
            async with await connect(host.port) as stream:
                await stream.send_all(request)
                with trio.fail_after(60):
                    answers.append(await stream.receive_some())
        return answers

    stock, ours = await both(scenario)
    assert stock[0].startswith(b"HTTP/1.1 101")
    assert stock[1][3:4] == b"\x04"  # a SETTINGS frame
    assert ours[0].startswith(b"HTTP/1.1 200")
    assert ours[1].startswith(b"HTTP/1.1 505")


async def test_twenty_readers_that_stopped_hold_the_stock_shutdown_and_not_ours():
    """A shutdown with 20 readers that stopped: ours is over when the grace is, stock is not."""

    async def scenario(host):
        streams = [await connect(host.port, receive_buffer=4096) for _ in range(20)]
        for stream in streams:
            await stream.send_all(GET % b"/flood")
        for stream in streams:
            await read_until(stream, b"\r\n\r\n")
        await trio.sleep(0.2)  # time for the kernel's buffers to fill: from then every write waits
        await host.begin_shutdown()
        over = await host.is_over(host.patience)
        for stream in streams:
            await trio.aclose_forcefully(stream)
        return over

    assert await both(scenario, shutdown=0.5) == (False, True)
