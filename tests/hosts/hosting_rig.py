"""Hosts as an operator starts them: processes with their options, their log in a file, ended by a signal."""

import itertools
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import h2.config
import h2.connection
import h2.events
import trio
from edge_service import CERTIFICATE, PATIENCE_S, Service, client_context, until

HERE = Path(__file__).parent
SCRIPTS = Path(sys.executable).parent
TLS = ("--certfile", CERTIFICATE, "--keyfile", CERTIFICATE)
JSON = {"content_type": "application/json"}
_numbers = itertools.count()
ADDRESS = re.compile(r"(?:Running|serves) on (https?)://(\[[0-9a-f:]+\]|[0-9.]+|unix):(\S+)")


@attrs.define
class Host:
    process: subprocess.Popen
    log_file: Path
    addresses: list = attrs.field(factory=list)  # (scheme, host, port or path), in the order it told them

    @property
    def log(self):
        return self.log_file.read_text()

    def service(self, scheme="http", host="127.0.0.1"):
        """The clients of `edge_service`, for one of the addresses."""
        port = next(int(port) for s, h, port in self.addresses if (s, h) == (scheme, host))
        return at(host.strip("[]"), port, tls=scheme == "https")

    async def end(self, how=signal.SIGTERM):
        """Tell it to end; its exit code, which has to come."""
        self.process.send_signal(how)
        return await self.wait()

    async def wait(self):
        await until(lambda: self.process.poll() is not None)
        return self.process.returncode


def at(host, port, *, tls=False):
    return Service(host, port, edge=None, swarm=None, shutdown=None, over=None, tls=tls)


@attrs.define
class UnixService(Service):
    """By way of a socket in the file system."""

    path: Path = Path()

    async def connect(self):
        return await trio.open_unix_socket(self.path)


def by_path(path):
    return UnixService("localhost", 0, edge=None, swarm=None, shutdown=None, over=None, path=path)


@asynccontextmanager
async def running(log_file, command, *arguments, binds=1, cwd=HERE, path=(), **environment):
    """Run a script of the virtual environment until it has told `binds` addresses; 0: until it is started."""
    paths = os.pathsep.join([*map(str, path), str(HERE), os.environ.get("PYTHONPATH", "")])
    told = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **environment}
    with log_file.open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - a moment; what it says goes to a file
            [str(SCRIPTS / command), *map(str, arguments)], stdout=log, stderr=subprocess.STDOUT, cwd=cwd, env=told
        )
    host = Host(process, log_file)
    try:
        with trio.fail_after(PATIENCE_S):
            while len(host.addresses) < binds:
                assert process.poll() is None, host.log
                await trio.sleep(0.02)
                host.addresses = [found.groups() for found in ADDRESS.finditer(host.log)]
        yield host
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert "Traceback" not in host.log, host.log


def hypercorn(log_file, application, *arguments, worker="trio", **options):
    return running(log_file, "hypercorn", "-k", worker, *arguments, application, **options)


@attrs.define
class Http2:
    """One connection with one request on it, read by h2: what httpx cannot ask for, or cannot leave."""

    stream: trio.SSLStream
    h2: h2.connection.H2Connection
    status: int = 0
    body: bytes = b""
    ended: bool = False
    ready: bool = False

    async def ask(self, *head):
        """Send a request's head, once the server has said what it can."""
        await self.until(lambda: self.ready)
        head = [(":scheme", "https"), (":authority", "localhost"), *head]
        self.h2.send_headers(1, head, end_stream=(":method", "GET") in head)
        await self.stream.send_all(self.h2.data_to_send())

    async def until(self, condition):
        with trio.fail_after(PATIENCE_S):
            while not condition():
                await self.stream.send_all(self.h2.data_to_send())
                for event in self.h2.receive_data(await self.stream.receive_some(65536)):
                    self.take(event)

    def take(self, event):
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.ready = True
        elif isinstance(event, h2.events.ResponseReceived):
            self.status = int(dict(event.headers)[b":status"])
        elif isinstance(event, h2.events.DataReceived):
            self.body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, 1)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended = True


@asynccontextmanager
async def http2(service):
    tcp = await trio.open_tcp_stream(service.host, service.port)
    stream = trio.SSLStream(tcp, client_context("h2"), server_hostname="localhost", https_compatible=True)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    connection.initiate_connection()
    async with stream:
        yield Http2(stream, connection)


async def use(service, prefix="", *, direct=None):
    """Publish, read, call and talk, as clients do; `direct` is how the host's application says they were written to.

    Each stream is asked for what was published before, so that nothing races.
    """
    room = f"r{next(_numbers)}"
    for number in range(3):
        answer = await service.ask("POST", f"{prefix}/v1/room/{room}/publish", b'{"data":%d}' % number, **JSON)
        assert answer.status == 200, answer
    assert (await service.ask("POST", f"{prefix}/v1/room/{room}/call/double", b"[21]", **JSON)).json == {"result": 42}
    async with service.sse(f"{prefix}/v1/room/{room}/events?since=0-0") as sse, service.ws(f"{prefix}/v1/ws") as ws:
        await sse.next()
        assert (await ws.subscribe(f"room/{room}", since="0-0"))["recovered"]
        assert [0, 1, 2] == await sse.data(3)
        assert [0, 1, 2] == [(await ws.next())["data"] for _ in range(3)]
        await ws.send(type="publish", data={"stream": f"room/{room}", "data": "live"})
        assert {"published", "event"} == {(await ws.next())["type"] for _ in range(2)}
        assert ["live"] == await sse.data(1)
        if direct is not None:
            clients = (await service.ask("GET", f"{prefix}/clients")).json
            assert {("sse", direct), ("websocket", direct)} == {(c["transport"], c["direct"]) for c in clients}
