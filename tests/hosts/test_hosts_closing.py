"""What an application says over a WebSocket after either side has said goodbye goes nowhere, on a host of any kind."""

from contextlib import suppress

import trio
from hypercorn.utils import UnexpectedMessageError
from worker_rig import PATIENCE, UPGRADE, client_frame, connect, read_until, served, server_frames


async def test_nothing_follows_a_close():
    """Neither the answer to the client's close, nor ours: the last frame that a client sees is the close."""
    told = trio.Event()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/ours":
            await send({"type": "websocket.send", "text": "before"})
            await send({"type": "websocket.close", "code": 1000})
        else:
            while (await receive())["type"] != "websocket.disconnect":
                pass
        with suppress(UnexpectedMessageError):  # after a close of its own, the host says
            for _ in range(3):
                await send({"type": "websocket.send", "text": "late"})
        told.set()

    async with served(app) as host:
        for path, before in ((b"/theirs", []), (b"/ours", [(1, b"before")])):
            told = trio.Event()
            async with await connect(host.port) as stream:
                await stream.send_all((UPGRADE % b"").replace(b"/ws", path))
                data = (await read_until(stream, b"\r\n\r\n")).partition(b"\r\n\r\n")[2]
                if path == b"/theirs":
                    await stream.send_all(client_frame(8, b"\x03\xe8"))
                with trio.fail_after(PATIENCE):
                    await told.wait()
                    await stream.send_eof()
                    while piece := await stream.receive_some():
                        data += piece
                assert [*before, (8, b"\x03\xe8")] == server_frames(data)
