"""What only the kernel and TLS can show: resets, certificates, a handshake that hangs."""

import socket
import ssl
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from scripted_service import CERTIFICATE, ScriptedService, event, hello, stream

from trio_swarm.client import Access, Event, Lost, Publisher, open_events, open_streams
from trio_swarm.errors import ServiceRefused
from trio_swarm.settings import UpstreamSettings
from trio_swarm.testing import assert_no_leaks
from trio_swarm.upstream.websocket import open_stream
from trio_swarm.wire.messages import Subscription

QUICK = UpstreamSettings(connect_s=5.0, backoff_initial_s=0.01, backoff_max_s=0.02)


def trusting(url, tls):
    return open_stream(url.replace("127.0.0.1", "localhost"), tls=tls)


TRUSTED = Access(
    opener=partial(trusting, tls=ssl.create_default_context(cafile=CERTIFICATE)),
    settings=QUICK,
)


@asynccontextmanager
async def open_at(service, access):
    """Where the service is is known only when it runs."""
    async with open_events(service.url, access=access) as source:
        yield source


async def read(source, number):
    got = []
    with trio.fail_after(10):
        while len(got) < number:
            happening = await anext(source)
            if isinstance(happening, Event):
                got.append(happening.data)
    return got


async def test_a_reset_in_the_middle_of_a_character():
    """The half event is not told, and comes whole over the next connection."""

    async def reset(peer):
        await peer.begin()
        await peer.send(hello("0-0") + event("1-0", 1))
        await peer.send(event("2-0", '"ü"').encode()[:-4])
        await trio.sleep(0.05)
        await peer.reset()

    service = ScriptedService(reset, stream(hello("1-0"), event("2-0", '"ü"')))
    with assert_no_leaks():
        async with service.running(real=True), open_at(service, Access(settings=QUICK)) as source:
            assert ["1", '"ü"'] == await read(source, 2)
    assert [None, "1-0"] == service.last_ids


async def test_over_tls():
    """With a certificate that is trusted it is the same."""
    service = ScriptedService(stream(hello("0-0"), event("1-0", 1)), stream(hello("1-0"), event("2-0", 2)))
    with assert_no_leaks():
        async with service.running(tls=True, real=True), open_at(service, TRUSTED) as source:
            assert ["1", "2"] == await read(source, 2)


@pytest.mark.parametrize("kind", ["sse", "websocket", "publish"])
async def test_a_certificate_that_nobody_vouches_for(kind):
    """It will be no better the next time."""
    access = Access(settings=QUICK)
    async with ScriptedService(stream()).running(tls=True, real=True) as service:
        with trio.fail_after(10), pytest.raises(ServiceRefused, match=r"certificate of 127.0.0.1:.* cannot be trusted"):
            if kind == "sse":
                async with open_events(service.url, access=access) as source:
                    await anext(source)
            elif kind == "websocket":
                url = service.url.replace("https", "wss")
                async with open_streams(url, [Subscription("k/a")], access=access) as source:
                    await anext(source)
            else:
                async with Publisher(service.url, access=access) as publisher:
                    await publisher.publish(b"1")


async def test_a_tls_handshake_that_hangs_and_is_left_leaves_nothing():
    """The socket goes with the scope, and does not wait for the garbage collector."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"https://127.0.0.1:{hanging.getsockname()[1]}/v1/k/a/events"
        with assert_no_leaks(), trio.move_on_after(0.2):
            async with open_events(url) as source:
                await anext(source)


async def test_plain_http_where_tls_was_meant():
    """The sentence says what failed, in words."""
    async with ScriptedService(then=stream()).running(real=True) as service:
        access = Access(settings=QUICK)
        async with open_events(service.url.replace("http:", "https:"), access=access) as source:
            with trio.fail_after(10):
                happening = await anext(source)
    assert isinstance(happening, Lost)
    assert "TLS failed" in happening.reason


async def test_nobody_there():
    """The sentence names the address, and what the system says."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        for opened in (open_events(f"http://{host}/"), open_streams(f"ws://{host}/", [Subscription("k/a")])):
            async with opened as source:
                with trio.fail_after(10):
                    happening = await anext(source)
            assert f"cannot connect to {host}: Connection refused" == happening.reason


async def test_the_kernel_watches_a_silent_server():
    """A server that is not ours may say nothing for hours; whether it is there, TCP finds out."""
    async with ScriptedService(then=stream(hold=True)).running(real=True) as service:
        tcp = await Access().open(service.url)
        assert 1 == tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert 30 == tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        await tcp.aclose()
