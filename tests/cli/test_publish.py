"""`trio-swarm publish` as a child process, against a real service and one that loses answers."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trio_swarm.cli.input_lines import LONGEST_LINE, MOST_BYTES, MOST_LINES, InputFailed, Lines, LineTooLong

PUBLISH = [sys.executable, "-m", "trio_swarm.cli", "publish"]


async def run(*arguments, stdin=b""):
    """Its exit code, and what it said on both outputs."""
    with trio.fail_after(60):
        done = await trio.run_process(
            [*PUBLISH, *map(str, arguments)], stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def history(url, limit=1000):
    def fetch():
        with urllib.request.urlopen(f"{url}/history?since=0-0&limit={limit}", timeout=10) as response:  # noqa: S310
            return json.loads(response.read())["events"]

    return await trio.to_thread.run_sync(fetch)


async def arrived(service, count):
    """Wait until so many events are in channel/a; the caller has a deadline."""
    while True:
        if len(await history(f"{service.url}/v1/channel/a")) >= count:
            return
        await trio.sleep(0.02)


async def test_one_event_and_many(child):
    """Of DATA, of text, of lines, of whole events; each with what the options say."""
    async with child("serve", "--bind", "127.0.0.1:0") as service:
        one = f"{service.url}/channel/one"
        code, said, notes = await run(
            one, '{"a":\n 1}', "--topic", "t", "--type", "m", "--key", "k", "--message-id", "i"
        )
        assert (0, "") == (code, notes)
        assert said.startswith("published 1 event, the last is ")
        assert said == (await run(one, '{"a": 2}', "--message-id", "i"))[1]  # the name is known: not done again
        assert (0, "") == (await run(one, "--text", 'ü "x"\n'))[::2]
        assert (0, "") == (await run(one, "--events", '{"data":[],"topic":"w","type":"n"}'))[::2]
        events = await history(f"{service.url}/v1/channel/one")
        assert [("t", "m", {"a": 1}), ("", "message", 'ü "x"\n'), ("w", "n", [])] == [
            (event["topic"], event["event"], event["data"]) for event in events
        ]
        many = f"ws://{service.url.removeprefix('http://')}/channel/many"  # as `tail` takes it
        lines = b"".join(b'{"n": %d}\r\n\n' % number for number in range(700))
        assert "published 700 events" in (await run(many, stdin=lines))[1]
        text = (await run(many, "--text", "-", "--skip", 1, stdin=b"left out\none\ntwo"))[1]
        assert "published 2 events" in text
        whole = b'{"topic":"a","data":1,"messageId":"x"}\n{"topic":"b","data":2}\n'
        first, again = [await run(many, "--events", stdin=whole) for _ in range(2)]
        assert first == again
        events = await history(f"{service.url}/v1/channel/many")
        assert [*({"n": number} for number in range(700)), "one", "two", 1, 2] == [event["data"] for event in events]
        assert (0, "published 0 events\n", "") == await run(many, stdin=b"")


async def test_lines_are_sent_as_they_come(child):
    """A slow source is not waited for until a batch is full."""
    async with child("serve", "--bind", "127.0.0.1:0") as service:
        process = await trio.lowlevel.open_process(
            [*PUBLISH, f"{service.url}/channel/a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            with trio.fail_after(60):
                for number in range(3):
                    await process.stdin.send_all(b"%d\n" % number)
                    await arrived(service, number + 1)
                await process.stdin.aclose()
                assert 0 == await process.wait()
        finally:
            process.kill()
            await process.stdout.aclose()


async def test_a_line_that_cannot_be(child):
    """It is named; everything before it is published, and nothing after; and how to go on is said."""
    async with child("serve", "--bind", "127.0.0.1:0") as service:
        url = f"{service.url}/channel/a"
        code, said, notes = await run(url, stdin=b"1\n2\n\nnot JSON\n5\n")
        assert (2, "", 1) == (code, said, notes.count("\n"))
        assert notes.startswith("Error: line 4: is not JSON")
        assert "acknowledged up to line 3; go on with --skip 3" in notes
        code, _, notes = await run(url, "--skip", 4, stdin=b"1\n2\n\nnot JSON\n5\n\xff\n")
        assert (2, "Error: line 6: is not UTF-8; acknowledged up to line 5; go on with --skip 5\n") == (code, notes)
        code, _, notes = await run(url, stdin=b'6\n\n"%b"\n' % (b"x" * 200_000))
        assert 2 == code
        assert "line 3: an event's data may have at most 102400 bytes" in notes
        assert "acknowledged up to line 2" in notes
        assert [1, 2, 5, 6] == [event["data"] for event in await history(f"{service.url}/v1/channel/a")]
        code, _, notes = await run(f"{service.url}/hub/x", "1")
        assert 2 == code
        assert "no kind 'hub'" in notes


@asynccontextmanager
async def service_that(*acts):
    """Answers each request by the next act: `answer`, `lose` (take it, and hang up), `busy`. Gives (host, requests)."""
    left = list(acts)
    requests = []

    async def serve(stream):
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(headers[b"content-length"]):
            body += await stream.receive_some(65536)
        requests.append((headers[b"idempotency-key"], body))
        act = left.pop(0) if left else "answer"
        if act == "answer":
            answer = b'{"id":"%d-0","count":%d}' % (len(requests), body.count(b"\n") + 1)
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)
            )
        elif act == "busy":
            await stream.send_all(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, serve, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}", requests
        nursery.cancel_scope.cancel()


async def test_a_lost_answer_is_no_second_event():
    """The request is sent again as it was, under its name; the next one has another."""
    async with service_that("answer", "lose", "busy", "answer") as (host, requests):
        lines = b"".join(b"%d\n" % number for number in range(MOST_LINES + 10))
        code, said, notes = await run(f"{host}/channel/a", stdin=lines)
    assert (0, f"published {MOST_LINES + 10} events, the last is 4-0\n") == (code, said)
    assert 2 == notes.count("trying again ")
    first, lost, busy, done = requests
    assert lost == busy == done
    assert first[0] != lost[0]
    assert 10 == done[1].count(b"\n") + 1


async def test_it_gives_up_and_can_be_resumed():
    """With the last line that is acknowledged, and what is not known."""
    async with service_that("answer", *["lose"] * 100) as (host, _):
        lines = b"".join(b"%d\n" % number for number in range(MOST_LINES + 10))
        code, said, notes = await run(f"{host}/channel/a", "--retry-for", 0.5, stdin=lines)
    assert (1, "") == (code, said)
    assert notes.splitlines()[-1].endswith(
        f"; acknowledged up to line {MOST_LINES}; whether the next 10 events arrived is not known; go on with --skip "
        f"{MOST_LINES}"
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, notes = await run(f"{host}/channel/a", "1", "--retry-for", 0)
    assert (1, f"Error: cannot connect to {host}: Connection refused\n") == (code, notes)


async def test_a_service_that_comes_back_is_waited_for(child):
    """A restart in the middle is a pause."""
    async with child("serve", "--bind", "127.0.0.1:0") as service:
        bind = service.url.removeprefix("http://")
        process = await trio.lowlevel.open_process(
            [*PUBLISH, f"{bind}/channel/a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            with trio.fail_after(60):
                await process.stdin.send_all(b"1\n")
                await arrived(service, 1)
                service.process.kill()
                await service.process.wait()
                await process.stdin.send_all(b"2\n")
                assert b"trying again" in await process.stderr.receive_some(4096)
                async with child("serve", "--bind", bind) as again:
                    await process.stdin.send_all(b"3\n")
                    await process.stdin.aclose()
                    assert 0 == await process.wait()
                    assert [2, 3] == [event["data"] for event in await history(f"{again.url}/v1/channel/a")]
        finally:
            process.kill()
            await process.stdout.aclose()
            await process.stderr.aclose()


async def test_ctrl_c_says_how_far_it_came(child):
    """The input is not at its end, so it is no success."""
    async with child("serve", "--bind", "127.0.0.1:0") as service:
        process = await trio.lowlevel.open_process(
            [*PUBLISH, f"{service.url}/channel/a"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            with trio.fail_after(60):
                await process.stdin.send_all(b"1\n2\n3")
                await arrived(service, 2)
                await trio.sleep(0.1)
                process.send_signal(signal.SIGINT)
                assert 1 == await process.wait()
                said = await process.stderr.receive_some(4096)
            assert b"Error: stopped; acknowledged up to line 2; go on with --skip 2\n" == said
        finally:
            process.kill()
            await process.stdin.aclose()
            await process.stderr.aclose()


@pytest.mark.parametrize("data", [["1"], []], ids=["one", "lines"])
async def test_ctrl_c_before_a_request_got_out(data):
    """While nobody is reached nothing can have been published, and that is said."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        process = await trio.lowlevel.open_process(
            [*PUBLISH, f"127.0.0.1:{closed.getsockname()[1]}/channel/a", *data],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            with trio.fail_after(60):
                await process.stdin.send_all(b"1\n")
                said = b""
                while b"trying again" not in said:
                    said += await process.stderr.receive_some(4096)
                process.send_signal(signal.SIGINT)
                assert 1 == await process.wait()
                while more := await process.stderr.receive_some(4096):
                    said += more
            assert "Error: stopped; nothing was published" == said.decode().splitlines()[-1]
        finally:
            process.kill()
            await process.stdin.aclose()
            await process.stderr.aclose()


async def test_ctrl_c_while_an_answer_is_awaited():
    """A request that got out may have been done: that is not called nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        process = await trio.lowlevel.open_process(
            [*PUBLISH, f"127.0.0.1:{listener.getsockname()[1]}/channel/a", "1"], stderr=subprocess.PIPE
        )
        try:
            with trio.fail_after(60):
                peer, _ = await trio.to_thread.run_sync(listener.accept)
                with peer:
                    await trio.to_thread.run_sync(peer.recv, 4096)
                    process.send_signal(signal.SIGINT)
                    assert 1 == await process.wait()
                said = await process.stderr.receive_some(4096)
            assert b"Error: stopped; whether it was published is not known\n" == said
        finally:
            process.kill()
            await process.stderr.aclose()


async def test_progress_is_for_terminals(child):
    """On a terminal a line that changes and goes away; the sentence is on stdout."""
    async with child("serve", "--bind", "127.0.0.1:0") as service:
        near, far = os.openpty()
        lines = b"1\n" * 3000
        with trio.fail_after(60):
            done = await trio.run_process(
                [*PUBLISH, f"{service.url}/channel/a"], stdin=lines, capture_stdout=True, stderr=far
            )
        os.close(far)
        shown = os.read(near, 65536).decode()
        os.close(near)
    assert b"published 3,000 events" in done.stdout
    assert "events, " in shown
    assert shown.endswith("\r\x1b[K")


# -- mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["URL"]),
        (["h", "1"], ["names no object", "http://host/kind/id"]),
        (["ws://h/v1/ws", "1"], ["names no object"]),
        (["h/k/a", "hello"], ["DATA", "is not JSON", "--text"]),
        (["h/k/a", "NaN"], ["DATA", "is not JSON"]),
        (["h/k/a", "[" * 5000], ["DATA", "nested too deeply"]),
        (["h/k/a", '1,"topic":"x"'], ["DATA", "is not JSON"]),
        (["h/k/a", "--events", "1"], ["DATA", "expected"]),
        (["h/k/a", "--events", '{"topic":"x"}'], ["DATA", "data"]),
        (["h/k/a", "--events", '{"data":1,"type":"gap"}'], ["DATA", "reserved"]),
        (["h/k/a", "1", "--topic", "a,b"], ["topic", "'a,b'"]),
        (["h/k/a", "1", "--type", "hello"], ["reserved"]),
        (["h/k/a", "1", "--message-id", ""], ["--message-id"]),
        (["h/k/a", "-", "--message-id", "x"], ["--message-id", "one event"]),
        (["h/k/a", "1", "--skip", "1"], ["--skip", "lines"]),
        (["h/k/a", "1", "--text", "--events"], ["exclude each other"]),
        (["h/k/a", "{}", "--events", "--topic", "x"], ["--events"]),
        (["h/k/a", "1", "--retry-for", "-1"], ["--retry-for"]),
    ],
)
def test_a_mistake_is_one_sentence(invoke, arguments, words):
    """And exit code 2, before anything is sent."""
    result = invoke("publish", *arguments)
    assert (2, "") == (result.exit_code, result.stdout)
    assert 1 == result.stderr.count("\n"), result.stderr
    for word in words:
        assert word in result.stderr


# -- lines


async def read_all(content):
    reading, writing = os.pipe()

    async def write():
        view = memoryview(content)
        while view:
            view = view[await trio.to_thread.run_sync(os.write, writing, view) :]
        os.close(writing)

    batches = []
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            lines = Lines(reading)
            while more := await lines.next():
                batches += more
    finally:
        os.close(reading)
    return batches


async def test_batches_are_bounded_and_numbered():
    """In lines and in bytes; a line that is larger than a batch goes alone; nothing is lost or out of order."""
    content = (
        [b"x" * (n % 700) for n in range(2000)]
        + [b"y" * (MOST_BYTES + 1)]
        + [b"z"] * 700
        + [b"the last, without an end"]
    )
    batches = await read_all(b"\n".join(content))
    assert content == [line for batch in batches for line in batch.lines]
    assert all(len(batch.lines) <= MOST_LINES for batch in batches)
    assert all(sum(map(len, batch.lines)) <= MOST_BYTES or len(batch.lines) == 1 for batch in batches)
    number = 1
    for batch in batches:
        assert number == batch.first
        number += len(batch.lines)


async def test_a_descriptor_that_does_not_block_is_waited_for():
    """Somebody who has the pipe open too may have made it so."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    batches = []

    async def read():
        lines = Lines(reading)
        while more := await lines.next():
            batches.extend(more)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for line in (b"1\n2", b"2\n"):
                await trio.testing.wait_all_tasks_blocked(0.05)
                os.write(writing, line)
            await trio.testing.wait_all_tasks_blocked(0.05)
            os.close(writing)
    os.close(reading)
    assert [(1, [b"1"]), (2, [b"22"])] == [(batch.first, batch.lines) for batch in batches]


async def test_a_descriptor_that_cannot_be_read():
    """It is told in the system's words."""
    reading, writing = os.pipe()
    with pytest.raises(InputFailed, match="Bad file descriptor"):
        await Lines(writing).next()
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    ("input_", "words"), [("0>/dev/null", "standard input: cannot be read: Bad file"), ("<&-", "is closed: give DATA")]
)
async def test_an_input_that_is_none_is_one_sentence(input_, words):
    """And exit code 2."""
    script = f'exec "$@" localhost:9/channel/a - {input_}'
    with trio.fail_after(60):
        done = await trio.run_process(["sh", "-c", script, "sh", *PUBLISH], capture_stderr=True, check=False)
    assert (2, 1) == (done.returncode, done.stderr.count(b"\n")), done.stderr
    assert words in done.stderr.decode()


async def test_a_line_without_end_is_not_kept():
    """Beyond what a service takes it is refused, by its number, after all lines before it."""
    reading, writing = os.pipe()

    async def write():
        content = b"1\n2\n" + b"x" * (2 * LONGEST_LINE)
        try:
            while content:
                content = content[await trio.to_thread.run_sync(os.write, writing, content[:65536]) :]
        except BrokenPipeError:
            pass
        os.close(writing)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        lines = Lines(reading)
        (batch,) = await lines.next()
        assert (1, [b"1", b"2"]) == (batch.first, batch.lines)
        with pytest.raises(LineTooLong) as raised:
            await lines.next()
        os.close(reading)
    assert 3 == raised.value.number
