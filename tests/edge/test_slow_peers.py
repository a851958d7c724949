"""`docs/deadlines.md` is executed: each row of its table is a peer that is slow in that way, over real sockets, against
the service with short times: through the direct transport, through ASGI, over TLS.

It is cut off within the row's limit and not before, sees what the row says, is counted under the row's reason, and
leaves nothing.
"""

import re
import ssl
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import psutil
import pytest
import trio
from edge_service import CERTIFICATE, PATIENCE_S, open_service, until
from test_edge_websocket import raw_websocket
from worker_rig import read_until

from trio_swarm.edge import reasons
from trio_swarm.settings import JournalSettings, LivenessSettings, ObjectSettings, Settings, StallSettings
from trio_swarm.testing import leaks
from trio_swarm.testing.slow_peers import ENDED, PONG, RESET, SLOW_PEERS, STAYING, be_slow

DOCUMENT = (Path(__file__).parents[2] / "docs" / "deadlines.md").read_text(encoding="utf-8")
FAR_S = 60.0  # a time that has no part in a test
LIMIT_S = 0.5
RATE = 200_000  # bytes a second: a dripper here takes 20,000
ANSWER_BYTES = 600_000  # more than the kernel takes at once
SIP_BYTES = 1_000
PAUSE_S = 0.05
EVENT_BYTES = 20_000
STREAMING = {"stopped stream", "stopped websocket", "dripping stream"}
HTTP_ALONE = {"head", "idle", "goodbye"}  # the application has no part in it, or the same


@attrs.frozen
class Row:
    name: str
    setting: str
    default: str
    sees: str
    reason: str


def rows():
    lines = re.findall(r"^\| `(.+?)` \| .+? \| `(.+?)` \| (.+?) \| (.+?) \| (.*?) ?\|$", DOCUMENT, re.MULTILINE)
    return [Row(name, setting, default, sees, reason.strip("`")) for name, setting, default, sees, reason in lines]


def ways(row):
    if row.name == "handshake":
        return ["tls"]
    if row.name == "silence":
        return ["direct"]
    if row.name in HTTP_ALONE:
        return ["direct", "tls"]
    return ["direct", "asgi", "tls"]


def short(setting):
    """Settings of which one is short, and the others have no part in it."""
    times = {"dead_s": FAR_S, "header_s": FAR_S, "body_s": FAR_S, "keep_alive_s": FAR_S, "closing_s": 0.2}
    liveness = LivenessSettings(**{**times, "ping_s": 0.1, "shutdown_s": 2.0})
    stall = StallSettings(seconds=FAR_S, bytes_per_s=RATE if setting == "stall.bytes_per_s" else RATE // 20)
    group, _, name = setting.partition(".")
    if group == "liveness":
        liveness = attrs.evolve(liveness, **{name: LIMIT_S})
    else:
        stall = attrs.evolve(stall, seconds=LIMIT_S)
    return Settings(
        liveness=liveness,
        stall=stall,
        journal=JournalSettings(events=500, bytes=4_000_000),
        objects=ObjectSettings(grace_s=0.1),
    )


def least_s(row, way):
    """The time before which it must not be cut off."""
    if row.name == "body":
        return LIMIT_S * 0.8
    if row.name == "dripping stream":
        return LIMIT_S + (0 if way == "asgi" else EVENT_BYTES / RATE)
    if row.name == "dripping answer":
        return LIMIT_S + ANSWER_BYTES / RATE
    return LIMIT_S * (1.5 if row.name == "black hole" else 1)


@asynccontextmanager
async def publishing(service, *, when):
    """Publish as long as it lasts."""

    async def publish():
        while True:
            await service.room().say("", "x" * EVENT_BYTES)
            await trio.sleep(0.005)

    async with trio.open_nursery() as nursery:
        if when:
            nursery.start_soon(publish)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("row", "way"), [(row, way) for row in rows() for way in ways(row)], ids=lambda value: getattr(value, "name", value)
)
async def test_a_row_of_the_table(row, way):
    """See the module."""
    settings = short(row.setting)
    before = psutil.Process().num_fds()
    async with open_service(settings, foreign=way == "asgi", tls=way == "tls", collector=False) as service:
        if row.name.endswith("answer"):
            await service.room().say("", "x" * EVENT_BYTES, ANSWER_BYTES // EVENT_BYTES)
        await service.ask("GET", "/healthz")  # the first connection of all brings a task that stays
        await until(
            lambda: not service.connection_class.statistics().connections + len(service.swarm.directory.hosts())
        )
        at_rest = await resting()
        tls = ssl.create_default_context(cafile=CERTIFICATE) if way == "tls" and row.name != "handshake" else None
        ends, connections = [], service.connection_class.statistics

        async def run(task_status):
            how = await be_slow(
                row.name,
                service.host,
                service.port,
                stream="room/a",
                pause_s=PAUSE_S,
                sip_bytes=SIP_BYTES,
                tls=tls,
                task_status=task_status,
            )
            ends.append(how)

        async with publishing(service, when=row.name in STREAMING), trio.open_nursery() as nursery:
            began = trio.current_time()
            peer = await nursery.start(run)
            await until(lambda: ends or not connections().connections)
            took = trio.current_time() - began
            await until(lambda: not connections().connections and (ends or row.name in STAYING))
            if row.name in {"close", "goodbye"}:
                assert ENDED == peer.end
            nursery.cancel_scope.cancel()
        assert least_s(row, way) <= took
        counted = connections().aborted | service.edge.statistics().ended
        expected = row.reason
        if way == "asgi" and row.name == "dripping stream":
            expected = reasons.STALLED  # headway cannot be seen there
        elif row.name == "body":
            assert {} == counted  # the application has answered, and the peer then left
            expected = ""
        if expected:
            assert expected in counted, counted
            assert set(counted) <= {expected, reasons.UNANSWERED, *(["a write was cancelled"] if way == "asgi" else [])}
        assert [] == ends or {"reset": RESET}.get(row.sees.removeprefix("a "), ENDED) == ends[0]
        await until(lambda: len(service.edge.clients) == 0)
        with trio.move_on_after(PATIENCE_S):
            while True:
                if await resting() == at_rest:
                    break
                await trio.sleep(0.05)
        now = await resting()
        assert at_rest == now, now[0] - at_rest[0]
    assert before == psutil.Process().num_fds()


@pytest.mark.parametrize("first", [b"", PONG], ids=["alone", "behind a pong"])
@pytest.mark.parametrize("head", [b"\x81", b"\x81\xfe\x40", b"\x81\xfe\x40\x00mask", b"\x89\x84mask12"])
async def test_a_frame_that_is_announced_has_its_time(first, head):
    """Whatever part of it has come, and whatever stood before it in the same read; then the connection is cut."""
    async with open_service(short("liveness.body_s")) as service, await raw_websocket(service) as stream:
        began = trio.current_time()
        await stream.send_all(first + head)
        with trio.fail_after(PATIENCE_S), pytest.raises(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        assert trio.current_time() - began >= LIMIT_S
        assert {reasons.SLOW_MESSAGE: 1} == service.connection_class.statistics().aborted


async def test_a_frame_that_came_in_pieces_is_over():
    """Its clock stops with its last byte."""
    async with open_service(short("liveness.body_s")) as service, await raw_websocket(service) as stream:
        for part in (PONG + b"\x8a", b"\x80\0\0", b"\0\0" + PONG):
            await stream.send_all(part)
            await trio.sleep(0.01)
        await trio.sleep(LIMIT_S * 1.5)
        assert {} == service.connection_class.statistics().aborted
        assert 1 == service.connection_class.statistics().connections


HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("drip", [b"", b"x"], ids=["stopped", "dripping"])
@pytest.mark.parametrize("before", [HEALTHZ, HEALTHZ + b"\r\n"], ids=["behind a request", "and an empty line"])
async def test_a_head_that_began_with_the_request_before_has_its_time(before, drip):
    """It counts from the answer on, as one whose first byte came then; not from a byte that comes later."""
    async with open_service(short("liveness.header_s")) as service, await service.connect() as stream:
        began = trio.current_time()
        await stream.send_all(before + b"GET /he")
        await read_until(stream, b'{"status":"ok"}')
        with trio.fail_after(PATIENCE_S):
            while service.connection_class.statistics().connections:
                await trio.sleep(PAUSE_S)
                if drip:
                    with suppress(trio.BrokenResourceError):
                        await stream.send_all(drip)
        assert LIMIT_S <= trio.current_time() - began < FAR_S / 4
        assert {reasons.SLOW_HEAD: 1} == service.connection_class.statistics().aborted


@pytest.mark.parametrize(("setting", "reason"), [("header_s", reasons.SLOW_HEAD), ("keep_alive_s", reasons.IDLE)])
async def test_empty_lines_are_no_bytes_of_a_head(setting, reason):
    """Neither the first request of a connection nor the next one gains time by them."""
    async with open_service(short(f"liveness.{setting}")) as service, await service.connect() as stream:
        began = trio.current_time()
        if reason == reasons.IDLE:
            await stream.send_all(HEALTHZ + b"\r\n")
            await read_until(stream, b'{"status":"ok"}')
        for part in (b"\r\n", b"\n", b"\r"):
            await trio.sleep(LIMIT_S / 4)
            await stream.send_all(part)
        await until(lambda: not service.connection_class.statistics().connections)
        assert LIMIT_S <= trio.current_time() - began < LIMIT_S * 1.7
        assert {reason: 1} == service.connection_class.statistics().aborted


async def resting():
    await trio.testing.wait_all_tasks_blocked(0.01)
    return Counter(task.name for task, _ in leaks._tasks()), psutil.Process().num_fds()


def test_the_table_and_the_peers_are_the_same():
    """Each row has its peer, and each peer its row."""
    assert set(SLOW_PEERS) == {row.name for row in rows()}


def test_the_table_tells_the_defaults():
    """What it says of a setting is what the setting is."""
    settings = Settings()
    factors = {"black hole": 1.5}
    for row in rows():
        group, _, name = row.setting.partition(".")
        value = getattr(getattr(settings, group), name)
        if name == "bytes_per_s":
            assert row.default == f"{value // 1024} KiB/s"
        else:
            assert row.default.split(" (")[0] == f"{value * factors.get(row.name, 1):g} s"


def test_every_reason_is_in_the_table():
    """A client is cut off for no reason that is not told."""
    told = {row.reason for row in rows()}
    known = {value for name, value in vars(reasons).items() if name.isupper()}
    assert known - told == {reasons.GONE, reasons.STUCK}
    assert told - known == {""}
