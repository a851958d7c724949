"""`replay` and `record` over real sockets, in this process and as commands."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import trio
from click.testing import CliRunner

from trio_swarm.cli.record import record
from trio_swarm.cli.replay import replay
from trio_swarm.settings import FeedSettings
from trio_swarm.testing.upstream import ScriptedUpstream
from trio_swarm.upstream.capture import Capture, CapturedFrame, CaptureWriter
from trio_swarm.upstream.feed import WebSocketFeed
from trio_swarm.upstream.record import Recorder
from trio_swarm.upstream.replay import Replay
from trio_swarm.upstream.websocket import connect

FAST = 1_000_000.0


def capture(*frames):
    return Capture("c", None, tuple(CapturedFrame(*frame) for frame in frames), frames[-1][0] if frames else 0.0)


def save(path, made):
    with CaptureWriter(path, name=made.name, url="ws://c") as writer:
        for frame in made.frames:
            writer.write(frame.t, frame.dir, frame.data)
    return path


@asynccontextmanager
async def replaying(made, **how):
    """A replay of a capture on a real port: (its URL, the player)."""
    player = Replay(made, **{"speed": FAST, **how})
    async with trio.open_nursery() as nursery:
        yield await nursery.start(player.serve), player
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(url):
    with trio.fail_after(10):
        async with connect("test", url, settings=FAST_SETTINGS) as connection:
            yield connection


FAST_SETTINGS = WebSocketFeed(FeedSettings("x", "ws://x"))._upstream
SMALL = capture((0.5, "out", "sub"), (1.0, "in", "one"), (1.5, "out", "more"), (2.0, "in", "two"))


async def test_the_clock_starts_with_the_first_text():
    """Where the capture has `out` frames nothing comes before the client's first text, and only `in` frames come."""
    async with replaying(SMALL) as (url, _), client(url) as connection:
        with trio.move_on_after(0.1) as patience:
            await connection.receive()
        assert patience.cancelled_caught
        await connection.send("anything")
        assert [await connection.receive() for _ in range(2)] == ["one", "two"]
        with trio.move_on_after(0.1) as patience:
            await connection.receive()
        assert patience.cancelled_caught
        await connection._websocket.ping()  # it stays open, and answers


async def test_without_out_frames_it_starts_with_the_handshake():
    """A capture that nobody spoke in is played at once, to each connection the whole."""
    made = capture((0.0, "in", "one"), (9.0, "in", "two"))
    async with replaying(made) as (url, _), client(url) as first, client(url) as second:
        for connection in (first, second):
            assert [await connection.receive() for _ in range(2)] == ["one", "two"]


async def test_a_loop_begins_again():
    """With `loop` the whole capture comes again and again; the client says nothing more."""
    async with replaying(SMALL, loop=True) as (url, player), client(url) as connection:
        await connection.send("go")
        assert [await connection.receive() for _ in range(6)] == ["one", "two"] * 3
        assert player.played >= 2


async def test_once_closes_and_ends():
    """With `once` the connection is closed with 1000 after the last frame, and the server ends by itself."""
    player = Replay(SMALL, speed=FAST, once=True)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(player.serve)
            async with client(url):
                pass  # one that leaves before it has begun ends nothing
            async with client(url) as connection:
                await connection.send("go")
                assert [await connection.receive() for _ in range(2)] == ["one", "two"]
                with pytest.raises(Exception, match="1000"):
                    await connection.receive()


async def test_the_speed_is_kept(autojump_clock):
    """Frames come at the times of the capture, counted from the first `out` frame, divided by the speed."""
    times = []

    class Clocked:
        async def receive(self):
            await trio.sleep(100)
            return "go"

        async def drain(self):
            await trio.sleep_forever()

        async def send(self, data):
            times.append((trio.current_time() - began, data))

    made = capture((2.0, "in", "early"), (3.0, "out", "sub"), (3.5, "in", "a"), (13.0, "in", "b"))
    began = trio.current_time()
    with trio.move_on_after(1000):
        await Replay(made, speed=4).play(Clocked())
    assert times == [(100.0, "early"), (100.125, "a"), (102.5, "b")]


@pytest.mark.parametrize("name", ["coinbase", "kraken"])
async def test_a_recorded_session_is_a_live_feed(shared, name):
    """A real capture through a replay and a feed: each of its events once, in order, byte for byte."""
    made = Capture.load(shared / "captures" / f"{name}.jsonl")
    system = ('{"type":"subscriptions"', '{"event"', '{"channelID"', '{"connectionID"')
    wanted = [frame.data for frame in made.incoming if not frame.data.startswith(system)]
    got = []
    async with replaying(made) as (url, _), trio.open_nursery() as nursery:
        feed = WebSocketFeed(FeedSettings(name, url, protocol=name, topics=("any",)))

        async def deliver(event):
            got.append(event.data.decode())
            await trio.lowlevel.checkpoint()
            if len(got) == len(wanted):
                nursery.cancel_scope.cancel()

        with trio.fail_after(20):
            await feed.run(deliver, lambda state, reason: None)
    assert got == wanted


async def test_what_is_recorded_can_be_replayed(tmp_path, shared):
    """Recording a replay gives the same frames again: BitMEX's first, with 709 KB, among them."""
    made = Capture.load(shared / "captures" / "bitmex.jsonl")
    path = tmp_path / "again.jsonl"
    texts = [frame.data for frame in made.outgoing]
    async with replaying(made, once=True) as (url, _):
        recorder = Recorder(url, path, name="again", send=texts)
        with trio.fail_after(20):
            await recorder.run()
    again = Capture.load(path)
    assert [frame.data for frame in again.incoming] == [frame.data for frame in made.incoming]
    assert [frame.data for frame in again.outgoing] == texts
    assert (again.name, again.url, again.complete, again.seconds) == ("again", url, True, again.frames[-1].t)
    assert "1000" in recorder.ended


async def test_a_recording_ends_when_its_time_is_over(tmp_path, autojump_clock):
    """`seconds` count from the connection; pings keep it alive meanwhile; cancelled it is whole as well."""
    for seconds, patience in ((100, 1000), (None, 50)):
        upstream = ScriptedUpstream()
        path = tmp_path / f"{seconds}.jsonl"
        async with trio.open_nursery() as nursery:
            await nursery.start(upstream.run)
            text = '{"op":"subscribe","topics":["a"]}'
            recorder = Recorder(upstream.url, path, name="c", send=[text], opener=upstream.open)
            began = trio.current_time()
            nursery.start_soon(_publish, upstream)
            with trio.move_on_after(patience):
                await recorder.run(seconds)
            assert trio.current_time() - began == min(seconds or 1000, patience)
            nursery.cancel_scope.cancel()
        made = Capture.load(path)
        assert made.complete
        assert [(frame.t, frame.dir) for frame in made.frames] == [(0, "out"), (0, "in"), (33, "in")]
        assert recorder.ended is None


async def _publish(upstream):
    await upstream.wait_topics("a")
    await trio.sleep(33)
    upstream.publish("a", 1)


async def _command(*arguments):
    return await trio.lowlevel.open_process(
        [sys.executable, "-c", "from trio_swarm.cli import main; main()", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


async def _has_lines(path, lines):
    while True:  # another process writes it
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            return
        await trio.sleep(0.02)


async def _read(process, pattern):
    text = b""
    while (found := re.search(pattern.encode(), text)) is None:
        received = await process.stdout.receive_some()
        assert received, text.decode()
        text += received
    return found[0].decode()


async def test_the_commands(tmp_path):
    """`replay` prints its URL; `record`, ended by SIGINT, leaves a whole capture; `replay --once` ends by itself."""
    path, again = save(tmp_path / "c.jsonl", SMALL), tmp_path / "again.jsonl"
    with trio.fail_after(30):
        player = await _command("replay", path, "--bind", "127.0.0.1:0", "--speed", "1000")
        url = await _read(player, r"ws://127\.0\.0\.1:[0-9]+")
        recorder = await _command("record", url, again, "--send", "go", "--send", "on")
        await _has_lines(again, 5)
        recorder.send_signal(signal.SIGINT)
        assert await _read(recorder, "4 frames") == "4 frames"
        assert await recorder.wait() == 0
        player.send_signal(signal.SIGINT)
        assert await player.wait() == 0
        once = await _command("replay", again, "--bind", "127.0.0.1:0", "--speed", "1000", "--once")
        async with client(await _read(once, r"ws://127\.0\.0\.1:[0-9]+")) as connection:
            await connection.send("go")
            assert [await connection.receive() for _ in range(2)] == ["one", "two"]
            assert await once.wait() == 0
    assert sorted((f.dir, f.data) for f in Capture.load(again).frames) == [
        ("in", "one"),
        ("in", "two"),
        ("out", "go"),
        ("out", "on"),
    ]
    for process in (player, recorder, once):
        await process.stdout.aclose()


async def test_a_recorder_that_is_killed_leaves_a_readable_file(tmp_path):
    """kill -9: every frame that came is in the file, and the replay plays it."""
    made = capture(*[(n / 100, "in", "x" * n) for n in range(200)])
    path = tmp_path / "killed.jsonl"
    async with replaying(made) as (url, _):
        with trio.fail_after(30):
            recorder = await _command("record", url, path)
            await _has_lines(path, 201)
            recorder.kill()
            await recorder.wait()
            await recorder.stdout.aclose()
    cut = Capture.load(path)
    assert not cut.complete
    assert [frame.data for frame in cut.frames] == [frame.data for frame in made.frames]


@pytest.mark.parametrize(
    ("command", "arguments", "code", "text"),
    [
        (replay, ["none.jsonl"], 2, "none.jsonl: cannot be read"),
        (replay, ["broken.jsonl"], 2, "broken.jsonl, line 2: is not a frame"),
        (replay, ["c.jsonl", "--bind", "9000"], 2, "is not HOST:PORT"),
        (replay, ["c.jsonl", "--bind", "host:70000"], 2, "is not HOST:PORT"),
        (replay, ["c.jsonl", "--bind", "0.0.0.0:0"], 2, "--open"),
        (replay, ["c.jsonl", "--speed", "0"], 2, "--speed"),
        (replay, ["c.jsonl", "--loop", "--once"], 2, "exclude each other"),
        (record, ["http://x", "new.jsonl"], 2, "is not a WebSocket URL"),
        (record, ["ws://127.0.0.1:1", "new.jsonl"], 1, "cannot connect to 127.0.0.1:1: Connection refused"),
        (record, ["ws://localhost:1/a", "new.jsonl"], 1, "cannot connect to localhost:1: Connection refused"),
        (record, ["ws://no-such-host.invalid", "new.jsonl"], 1, "cannot connect to no-such-host.invalid: "),
        (record, ["ws://127.0.0.1:1", "c.jsonl"], 2, "exists already"),  # told before a connection is tried
        (record, ["ws://127.0.0.1:1", "no/such/new.jsonl"], 2, "there is no folder no/such"),
    ],
)
def test_mistakes_are_told(tmp_path, monkeypatch, command, arguments, code, text):
    """A mistake is a sentence and an exit code; a recording that never began leaves no file."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "c.jsonl", SMALL)
    (tmp_path / "broken.jsonl").write_text(json.dumps({**HEAD, "frames": 1}) + "\n{}\n")
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, text in result.output) == (code, True), result.output
    assert not (tmp_path / "new.jsonl").exists()


HEAD = {"capture": 1, "name": "x", "url": None, "seconds": 0}


def test_a_port_that_is_taken(tmp_path):
    """Where another listens, replay says so."""
    path = save(tmp_path / "c.jsonl", SMALL)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(replay, [str(path), "--bind", f"127.0.0.1:{taken.getsockname()[1]}"])
    assert result.exit_code == 2
    assert "cannot listen on 127.0.0.1" in result.output
    assert result.output.endswith("; give another with --bind HOST:PORT\n")


async def test_strangers_do_not_end_a_replay():
    """Plain HTTP, noise and a peer that hangs up are their own affair; the others play on."""
    async with replaying(SMALL) as (url, _):
        port = int(url.rsplit(":", 1)[1])
        for noise in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x00" * 100,
            b"",
            b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n",
        ):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            if noise:
                await stream.send_all(noise)
            await trio.sleep(0.02)
            await stream.aclose()
        async with client(url) as connection:
            await connection.send("go")
            assert await connection.receive() == "one"
