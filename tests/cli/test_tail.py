"""`trio-swarm tail` as a child process, against services that are real and servers that are not ours."""

import fcntl
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import termios
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from trio_swarm.cli.lines import again_in, json_line, note, plain_line, printable
from trio_swarm.client import Event, Gap, Problem, Snapshot, Status

CERTIFICATE = str(Path(__file__).parents[1] / "edge" / "localhost.pem")
TAIL = [sys.executable, "-m", "trio_swarm.cli", "tail"]
GAMES = """
from trio_swarm import DurableObject, exposed

class Game(DurableObject):
    async def snapshot(self):
        return {"score": [0, 0]}

    @exposed
    async def goal(self, team: int):
        self.publish("score", team)
        self.publish("talk", "a goal", type="shout")
"""


class Tail:
    """A running `tail`: what it said, line by line."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self.notes = []

    async def listen(self, stream, lines):
        rest = b""
        async for chunk in stream:
            *whole, rest = (rest + chunk).split(b"\n")
            lines += [line.decode() for line in whole]

    async def until(self, condition):
        with trio.fail_after(60):
            while not condition(self):
                assert self.process.poll() is None, (self.lines, self.notes)
                await trio.sleep(0.01)

    async def data(self, count):
        """The data of the first so many events, with `--json`."""
        await self.until(lambda tail: len(tail.lines) >= count)
        return [json.loads(line)["data"] for line in self.lines]

    async def end(self, number=signal.SIGINT):
        self.process.send_signal(number)
        with trio.fail_after(60):
            return await self.process.wait()


@asynccontextmanager
async def tailing(*arguments):
    process = await trio.lowlevel.open_process(
        [*TAIL, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    tail = Tail(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tail.listen, process.stdout, tail.lines)
            nursery.start_soon(tail.listen, process.stderr, tail.notes)
            yield tail
            nursery.cancel_scope.cancel()
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True), trio.move_on_after(5):
            await process.wait()
        await process.stdout.aclose()
        await process.stderr.aclose()


async def run(*arguments):
    """A `tail` that ends by itself."""
    with trio.fail_after(60):
        return await trio.run_process(
            [*TAIL, *map(str, arguments)], capture_stdout=True, capture_stderr=True, check=False
        )


async def post(url, body, path="publish"):
    def send():
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/{path}", json.dumps(body).encode(), headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - our own service
            return json.loads(response.read())

    return await trio.to_thread.run_sync(send)


async def test_events_of_a_service(child, tmp_path):
    """Over both protocols, plain and as JSON, from the beginning, of all topics or some."""
    (tmp_path / "games.py").write_text(GAMES)
    async with child("serve", "--bind", "127.0.0.1:0", "--objects", "games", cwd=tmp_path) as service:
        host = service.url.removeprefix("http://")
        for number in range(3):
            await post(f"{service.url}/v1/channel/a", {"topic": "t", "data": {"n": number, "s": "ü"}})
        await post(f"{service.url}/v1/channel/a", {"topic": "u", "type": "shout", "data": "x"})
        told = []
        for url in (f"{host}/channel/a", f"ws://{host}/channel/a", f"{service.url}/v1/channel/a/events"):
            done = await run(url, "--since", "0-0", "--count", 4, "--json")
            assert (0, b"") == (done.returncode, done.stderr)
            told.append([json.loads(line) for line in done.stdout.splitlines()])
        assert told[0] == told[1] == told[2]
        first, *_, last = told[0]
        assert {"stream": "channel/a", "topic": "t", "event": "message", "data": {"n": 0, "s": "ü"}} == {
            name: value for name, value in first.items() if name != "id"
        }
        assert ("shout", "u", "x") == (last["event"], last["topic"], last["data"])
        done = await run(f"{host}/channel/a", "--since", first["id"], "--topics", "t,x", "--count", 2)
        lines = done.stdout.decode().splitlines()
        assert [r't  message  {"n":1,"s":"\u00fc"}', r't  message  {"n":2,"s":"\u00fc"}'] == [
            line[10:] for line in lines
        ]
        assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in lines)
        done = await run(f"ws://{host}", "--stream", "channel/a", "--stream", "game/g", "--count", 1)
        assert 'game/g  snapshot  {"score":[0,0]}' == done.stdout.decode().strip()[10:]


async def test_lines_come_as_events_do(child):
    """Each is written when it comes, also into a pipe; Ctrl-C is the end, and no error."""
    async with child("serve", "--bind", "127.0.0.1:0") as service:
        url = f"{service.url}/v1/channel/a"
        async with tailing(url, "--since", "0-0", "--json") as tail:
            for number in range(5):
                await post(url, {"data": number})
                assert number == (await tail.data(number + 1))[-1]
            assert 0 == await tail.end()
        assert [] == tail.notes


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_it_goes_on_after_the_service_was_killed_and_is_back(child, scheme):
    """`kill -9`, and the same port again: the gap is told, and what comes after it is printed, once."""
    async with child("serve", "--bind", "127.0.0.1:0") as service:
        bind = service.url.removeprefix("http://")
        url = f"{service.url}/v1/channel/a"
        await post(url, {"data": 1})
        async with tailing(f"{scheme}://{bind}/channel/a", "--since", "0-0", "--json") as tail:
            assert [1] == await tail.data(1)
            service.process.kill()
            await service.process.wait()
            await tail.until(lambda tail: any("trying again" in note for note in tail.notes))
            async with child("serve", "--bind", bind):
                await tail.until(lambda tail: "connected again" in tail.notes)
                await post(url, {"data": 2})
                await tail.until(lambda tail: len(tail.lines) >= 3)
                before, gap, after = (json.loads(line) for line in tail.lines)
                assert 0 == await tail.end(signal.SIGTERM)
    assert ([1, 2], "gap") == ([before["data"], after["data"]], gap["event"])
    assert before["id"] == gap["data"]["after"]


async def test_a_service_that_ends_in_order_asks_to_be_waited_for(child):
    """Its `retry` or `retry_ms` is what is waited for, and said."""
    for scheme in ("http", "ws"):
        async with child("serve", "--bind", "127.0.0.1:0") as service:
            url = service.url.replace("http", scheme)
            await post(f"{service.url}/v1/channel/a", {"data": "it is there"})
            async with tailing(f"{url}/channel/a", "--since", "0-0") as tail:
                await tail.until(lambda tail: tail.lines)  # else it may find nobody, and ask again at once
                await service.end()
                await tail.until(lambda tail: tail.notes)
                waited = re.search(r"trying again in ([0-9.]+) s", tail.notes[0])
                assert 1.0 <= float(waited[1]) <= 11.0


async def test_a_restart_in_the_journal_s_time_loses_nothing(child):
    """A client that is cut off resumes where it was, without a gap."""
    async with child("serve", "--bind", "127.0.0.1:0") as service:
        url = f"{service.url}/v1/channel/a"
        port = int(service.url.rpartition(":")[2])
        async with (
            cutting_proxy(port) as (address, cut),
            tailing(f"{address}/channel/a", "--since", "0-0", "--json") as tail,
        ):
            for number in range(6):
                await post(url, {"data": number})
                await tail.data(number + 1)
                if number % 2:
                    cut()
            await tail.until(lambda tail: len(tail.lines) >= 6)
            assert list(range(6)) == await tail.data(6)
            assert sum("trying again" in note for note in tail.notes) >= 2


@asynccontextmanager
async def cutting_proxy(port):
    """A way to a service that can be cut: (its address, how to cut)."""
    scopes = set()

    async def carry(source, sink):
        async for chunk in source:
            await sink.send_all(chunk)

    async def serve(near):
        async with near, await trio.open_tcp_stream("127.0.0.1", port) as far:
            with trio.CancelScope() as scope:
                scopes.add(scope)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(carry, near, far)
                    nursery.start_soon(carry, far, near)

    def cut():
        while scopes:
            scopes.pop().cancel()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, serve, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}", cut
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def foreign(*answers, requests=None, tls=False):
    """A server of somebody else: each connection is answered with the next of these bytes. Gives its address."""
    left = list(answers)

    async def serve(stream):
        try:
            request = await stream.receive_some(65536)
        except trio.BrokenResourceError:
            request = b""
        if not request:  # who does not trust the certificate
            await trio.aclose_forcefully(stream)
            return
        if requests is not None:
            requests.append(request)
        await stream.send_all(left.pop(0) if len(left) > 1 else left[0])
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(CERTIFICATE)
            listener = trio.SSLListener(listener, context, https_compatible=True)
        await nursery.start(trio.serve_listeners, serve, [listener])
        yield f"localhost:{port}" if tls else f"127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


async def test_another_server(tmp_path):
    """Its events are printed whatever they hold, without a chance to steer the terminal."""
    events = b'event: odd\nid: 1\ndata: \x1b[31mred\ndata: two\n\ndata: {"a": [1, 2]}\n\n'
    async with foreign(OK + events) as host:
        done = await run(f"http://{host}/stream", "--count", 2)
        assert ["odd  \\u001b[31mred\\u000atwo", 'message  {"a":[1,2]}'] == [
            line[10:] for line in done.stdout.decode().splitlines()
        ]
        done = await run(f"http://{host}/kind/id", "--exact", "--count", 2, "--json")
        odd, plain = (json.loads(line) for line in done.stdout.splitlines())
        assert {"id": "1", "event": "odd", "data": "\x1b[31mred\ntwo"} == odd
        assert {"id": "1", "event": "message", "data": {"a": [1, 2]}} == plain


async def test_headers_and_certificates():
    """As with curl: `-H`, a name and password in the URL, `--cacert`, `--insecure`; and no trust by itself."""
    requests = []
    async with foreign(OK + b"data: 1\n\n", requests=requests, tls=True) as host:
        url = f"https://{host}/stream"
        done = await run(url, "--count", 1)
        assert (2, 1) == (done.returncode, done.stderr.count(b"\n"))
        assert f"certificate of {host} cannot be trusted" in done.stderr.decode()
        assert [] == requests
        trusted = await run(url, "--count", 1, "--cacert", CERTIFICATE, "-H", "X-Token: t t", "-H", "y:z")
        careless = await run(f"https://me:secret@{host}/stream", "--count", 1, "--insecure")
    assert [0, 0] == [trusted.returncode, careless.returncode]
    assert b"\r\nx-token: t t\r\ny: z\r\n" in requests[0].lower()
    assert b"\r\nauthorization: basic bwu6c2vjcmv0\r\n" in requests[1].lower()


async def test_the_end_of_another_server():
    """204 says that there is no more."""
    async with foreign(OK + b"retry: 1\ndata: 1\n\n", b"HTTP/1.1 204 No Content\r\n\r\n") as host:
        done = await run(f"{host}/stream")
    assert (0, 1) == (done.returncode, done.stdout.count(b"\n"))
    assert done.stderr.decode().endswith("the service says that there is no more\n")


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 2, "Not Found (HTTP 404)"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n", 2, "no stream of events"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://there/\r\nContent-Length: 0\r\n\r\n", 2, "http://there/"),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n", 1, "HTTP 503"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 1, "does not speak HTTP"),
        (b"", 1, "hung up"),
        (OK[:30], 1, "hung up"),
    ],
)
async def test_a_first_contact_that_fails(answer, code, words):
    """One sentence, and the end: 2 where it is for good, 1 where later it may work."""
    async with foreign(answer) as host:
        done = await run(f"{host}/stream")
    assert (code, b"", 1) == (done.returncode, done.stdout, done.stderr.count(b"\n"))
    assert words in done.stderr.decode()


async def test_nobody_there():
    """Like other commands that follow something, it does not wait for a service that is not there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for scheme in ("http", "ws"):
            host = f"127.0.0.1:{taken.getsockname()[1]}"
            done = await run(f"{scheme}://{host}/channel/a")
            assert (1, f"Error: cannot connect to {host}: Connection refused\n") == (
                done.returncode, done.stderr.decode()
            )  # fmt: skip


async def test_seconds():
    """It ends in time, connected or not, and says so where there was no connection."""
    async with foreign(OK + b"data: 1\n\n" + b":" * 10) as host:
        done = await run(f"{host}/stream", "--seconds", 1)
    assert 0 == done.returncode
    assert done.stdout
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = await run(f"127.0.0.1:{silent.getsockname()[1]}/stream", "--seconds", 0.5)
    assert (1, "Error: no connection within 0.5 s\n") == (done.returncode, done.stderr.decode())


async def test_nobody_reads_any_more():
    """`| head -1` ends it at once, also when nothing more comes, and quietly."""
    async with foreign_that_holds(OK + b"data: 1\n\n") as host:
        for option in ("", "--json"):
            command = f"{' '.join(TAIL)} {host}/stream {option} | head -1; echo ${{PIPESTATUS[0]}}"
            with trio.fail_after(60):
                done = await trio.run_process(["bash", "-c", command], capture_stdout=True, capture_stderr=True)
            assert ["0", b""] == [done.stdout.decode().splitlines()[-1], done.stderr]
            assert 2 == done.stdout.count(b"\n")


@asynccontextmanager
async def foreign_that_holds(answer):
    async def serve(stream):
        await stream.receive_some(65536)
        try:
            await stream.send_all(answer)
            while await stream.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, serve, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_a_full_pipe_does_not_keep_it():
    """Where nobody reads, and the pipe is full, Ctrl-C and `--seconds` still end it."""
    many = OK + b"".join(b"data: %d %b\n\n" % (n, b"x" * 30_000) for n in range(50))  # a pipe takes 64 KiB
    async with foreign_that_holds(many) as host:
        for option in ([], ["--seconds", "2"]):
            reading, writing = os.pipe()
            process = await trio.lowlevel.open_process([*TAIL, f"{host}/stream", *option], stdout=writing)
            os.close(writing)
            try:
                with trio.fail_after(60):
                    await until_full(reading)
                    if not option:
                        process.send_signal(signal.SIGINT)
                    assert 0 == await process.wait()
            finally:
                process.kill()
                os.close(reading)


async def until_full(reading):
    """Until what waits in a pipe does not grow any more."""
    size, before = 0, -1
    while size == 0 or size != before:
        before = size
        await trio.sleep(0.2)
        size = int.from_bytes(fcntl.ioctl(reading, termios.FIONREAD, b"\0" * 4), "little")


# -- mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["URL"]),
        (["localhost:8000"], ["names no stream", "kind/id"]),
        (["ws://h/v1/ws"], ["--stream"]),
        (["h/Kind/a/b/c", "--topics", "x"], ["--topics"]),
        (["h/k/a", "--since", "yesterday"], ["'yesterday'", "event id"]),
        (["h/k/a", "--count", "0"], ["--count"]),
        (["h/k/a", "--seconds", "0"], ["--seconds"]),
        (["h/k/a", "-H", "nonsense"], ["NAME: VALUE"]),
        (["h/k/a", "-H", "Host: other"], ["Host", "itself"]),
        (["h/k/a", "-H", "X: a\r\nY: b"], ["NAME: VALUE"]),
        (["https://h/k/a", "--cacert", "no/such.pem"], ["no/such.pem", "No such file"]),
        (["https://h/k/a", "--cacert", __file__], ["no certificate"]),
    ],
)
def test_a_mistake_is_one_sentence(invoke, arguments, words):
    """And exit code 2, before anything is connected."""
    result = invoke("tail", *arguments)
    assert (2, "") == (result.exit_code, result.stdout)
    assert 1 == result.stderr.count("\n"), result.stderr
    for word in words:
        assert word in result.stderr


def test_a_secret_in_a_header_is_not_repeated(invoke):
    """The value may be a token."""
    assert "s3cret" not in invoke("tail", "h/k/a", "-H", "Authorization s3cret").stderr


# -- lines


def test_json_lines():
    """One object for whatever happens; what is no JSON is a string."""
    told = [
        Event("k/a", "1-0", "t", "m", '{"a":\n [1, 2.0]}'),
        Event(None, None, None, "message", "not JSON"),
        Event(None, "x", None, "message", '"a\u2028b"'),
        Snapshot("k/a", "2-0", "12345678901234567890123"),
        Gap("k/a", "1-0", "2-0"),
        Status("k/a", '{"feed":"f"}'),
        Problem("k/a", "c", "m"),
    ]
    assert [
        '{"stream":"k/a","id":"1-0","topic":"t","event":"m","data":{"a":[1,2.0]}}',
        '{"event":"message","data":"not JSON"}',
        '{"id":"x","event":"message","data":"a\u2028b"}',
        '{"stream":"k/a","id":"2-0","event":"snapshot","data":12345678901234567890123}',
        '{"stream":"k/a","event":"gap","data":{"after":"1-0","before":"2-0"}}',
        '{"stream":"k/a","event":"status","data":{"feed":"f"}}',
        '{"stream":"k/a","event":"error","data":{"code":"c","message":"m"}}',
    ] == [json_line(each).decode().removesuffix("\n") for each in told]


def test_plain_lines_cannot_steer_a_terminal():
    """Whatever does not print is escaped, and JSON stays JSON by it."""
    nasty = "\x1b]0;title\x07\u202e\x85\U000e0001\u2028"
    line = plain_line(
        Event("k/a", "1-0", nasty, "m", json.dumps(nasty, ensure_ascii=False)), "12:00:00", with_stream=True
    )
    text = line.decode().removesuffix("\n")
    assert text.isprintable()
    at, stream, topic, kind, data = text.split("  ")
    assert ("12:00:00", "k/a", "m", nasty) == (at, stream, kind, json.loads(data))
    assert nasty == json.loads(f'"{topic}"')
    assert "plain ü 漢" == printable("plain ü 漢")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('{"feed":"cb","state":"live","reason":null}', "feed cb is live"),
        ('{"feed":"cb","state":"live"}', "feed cb is live"),
        ('{"feed":"cb","state":"down","reason":"the feed was silent"}', "feed cb is down: the feed was silent"),
        ('{"feed": 1}', 'status: {"feed":1}'),
        ("nothing of ours", "status: nothing of ours"),
    ],
)
def test_a_status_is_a_sentence(data, said):
    """Of a feed of ours it says how that is; anything else is shown as it came."""
    assert said == note(Status("hub/cb", data))


def test_when_it_tries_again():
    """Nobody waits for 0.0 s."""
    assert ["trying again at once", "trying again in 0.1 s", "trying again in 12.3 s"] == [
        again_in(seconds) for seconds in (0.04, 0.06, 12.3)
    ]
