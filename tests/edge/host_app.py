"""A tiny ASGI application on a Hypercorn of its own, with the stock connection class or ours; run by path.

    python host_app.py stock|ours [--stall S] [--header S] [--shutdown S] [--memory MIB]

It prints its port, serves until its standard input closes (then it shuts down as a service does) and prints `over` at
its end. `/stats` answers with the number of applications that live and the peak of this process's memory.
"""

import argparse
import json
import resource
import socket
import sys
from functools import partial
from pathlib import Path

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config, Sockets
from hypercorn.trio import run as host_run

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trio_swarm.edge.worker import KEY, make_connection_class, serve
from trio_swarm.settings import LivenessSettings, Settings, StallSettings

EVENT = b"data: " + b"x" * 1000 + b"\n\n"


class App:
    def __init__(self):
        self.live = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.live += 1
        try:
            if scope["type"] == "websocket":
                await self.websocket(receive, send)
            else:
                await getattr(self, scope["path"].strip("/"))(scope, receive, send)
        finally:
            self.live -= 1

    async def hello(self, scope, receive, send):
        await answer(send, b"hello")

    async def stats(self, scope, receive, send):
        await answer(send, json.dumps({"live": self.live - 1, "peak_mib": peak_mib()}).encode())

    async def stream(self, scope, receive, send):
        """A stream that says nothing after its first event."""
        await begin(scope, send)
        await send({"type": "http.response.body", "body": EVENT, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def flood(self, scope, receive, send):
        """A stream that writes as fast as its client reads."""
        await begin(scope, send)
        while True:
            await send({"type": "http.response.body", "body": EVENT * 16, "more_body": True})

    async def echo(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        await answer(send, body)

    async def refuse(self, scope, receive, send):
        """Answers without reading the body."""
        await answer(send, b"too large", 413)

    async def crash(self, scope, receive, send):
        raise RuntimeError("planted")

    async def websocket(self, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": str(len(message["text"] or message["bytes"]))})


def peak_mib():
    """The peak since this program began; `ru_maxrss` outlives `exec`: it is the parent's where that was larger."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) // 1024


async def begin(scope, send):
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    connection = scope.get("state", {}).get(KEY)
    if connection is not None:
        connection.streaming()


async def answer(send, body, status=200):
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def serve_stock(app, settings, *, sockets, shutdown_trigger):
    config = Config()
    config.graceful_timeout = settings.liveness.shutdown_s * 0.6
    await host_run.worker_serve(
        ASGIWrapper(app), config, sockets=Sockets([], sockets, []), shutdown_trigger=shutdown_trigger
    )


async def stdin_closes():
    stdin = trio.lowlevel.FdStream(sys.stdin.fileno())
    while await stdin.receive_some():
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["stock", "ours"])
    parser.add_argument("--stall", type=float, default=30.0)
    parser.add_argument("--header", type=float, default=10.0)
    parser.add_argument("--shutdown", type=float, default=5.0)
    parser.add_argument("--memory", type=int, default=1024)
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    resource.setrlimit(resource.RLIMIT_AS, (options.memory << 20, options.memory << 20))
    settings = Settings(
        stall=StallSettings(seconds=options.stall),
        liveness=LivenessSettings(header_s=options.header, shutdown_s=options.shutdown),
    )
    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        print(sock.getsockname()[1], flush=True)
        run = partial(serve, connection_class=make_connection_class(settings))
        if options.kind == "stock":
            run = serve_stock
        trio.run(partial(run, App(), settings, sockets=[sock], shutdown_trigger=stdin_closes))
    print("over", flush=True)


if __name__ == "__main__":
    main()
