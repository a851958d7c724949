"""`trio-swarm serve --certfile --keyfile`, as a process, and what clients do to it."""

import json
import re
import signal
import socket
import ssl
import struct
import warnings
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner
from edge_service import CERTIFICATE, PATIENCE_S, client_context, until
from hosting_rig import HERE, JSON, TLS, running, use

from trio_swarm.cli import main

MANY = 100


def served(tmp_path, **environment):
    """A limit of connections tells whether those who left are gone."""
    limit = {"TRIO_SWARM_LIMITS__CONNECTIONS": str(MANY + 10), **environment}
    arguments = ("serve", "--objects", "hosted", "--bind", "127.0.0.1:0", *TLS)
    return running(tmp_path / "log", "trio-swarm", *arguments, **limit)


async def handshake(service, context):
    tcp = await trio.open_tcp_stream(service.host, service.port)
    stream = trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True)
    try:
        with trio.fail_after(PATIENCE_S):
            await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def test_everything_goes_over_tls(tmp_path):
    """Events, WebSockets, requests, by ssl and h11 and by curl; TLS 1.2 and later, and HTTP/1.1 alone."""
    async with served(tmp_path) as host:
        [(scheme, _, port)] = host.addresses
        assert "https" == scheme
        service = host.service("https")
        await use(service)
        url = f"https://localhost:{port}"
        sent = await curl("--json", '{"data":"by curl"}', f"{url}/v1/room/curl/publish")
        assert 1 == json.loads(sent)["count"]
        read = await curl("--max-time", "1", "-N", f"{url}/v1/room/curl/events?since=0-0", code=28)
        assert 'data: "by curl"' in read

        async with await handshake(service, client_context("h2", "http/1.1")) as stream:
            assert "http/1.1" == stream.selected_alpn_protocol()
            assert "TLSv1.3" == stream.version()
        async with await handshake(service, client_context("h2")) as stream:
            assert stream.selected_alpn_protocol() is None
        second = client_context()
        second.maximum_version = ssl.TLSVersion.TLSv1_2
        async with await handshake(service, second) as stream:
            assert "TLSv1.2" == stream.version()
        second.set_ciphers("ALL:@SECLEVEL=0")  # else it is the client that refuses
        async with await handshake(service, second):
            pass
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            second.minimum_version, second.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises(trio.BrokenResourceError):
            await handshake(service, second)


async def curl(*arguments, code=0):
    command = ["curl", "-sS", "--http1.1", "--cacert", CERTIFICATE, *arguments]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert code == done.returncode, done.stderr
    return done.stdout.decode()


async def test_who_leaves_without_a_word_is_gone(tmp_path):
    """A hundred at once hear all, then leave in every way that TLS has; a hundred more find room. Nothing is logged."""
    async with served(tmp_path) as host:
        service = host.service("https")
        for ending in (vanish, reset, only_say_goodbye):
            async with crowd(service, ending.__name__) as streams:
                for stream in streams:
                    await ending(stream)
        async with await trio.open_tcp_stream(service.host, service.port) as plain:
            await plain.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            with trio.fail_after(PATIENCE_S):
                while await plain.receive_some():  # an alert, perhaps; then the end, which is no reset
                    pass
        async with await trio.open_tcp_stream(service.host, service.port):
            pass  # no handshake at all
        await use(service)
        assert 0 == await host.end()
        assert [] == [line for line in host.log.splitlines() if re.search(r"warning|error|critical", line)]


@asynccontextmanager
async def crowd(service, room):
    """The streams of a hundred clients at once, each having read what was said meanwhile."""
    greeted, streams = [], []

    async def one():
        stream = await handshake(service, client_context())
        streams.append(stream)
        await stream.send_all(b"GET /v1/room/%b/events HTTP/1.1\r\nhost: x\r\n\r\n" % room.encode())
        told = b""
        while b"event: hello" not in told:
            told += await stream.receive_some(65536)
            assert told.startswith(b"HTTP/1.1 200"), told
        greeted.append(stream)
        while [n for n in range(3) if b'data: "%d"' % n not in told]:
            told += await stream.receive_some(65536)

    try:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for _ in range(MANY):
                    nursery.start_soon(one)
                await until(lambda: len(greeted) == MANY)
                for number in range(3):
                    await service.ask("POST", f"/v1/room/{room}/publish", b'{"data":"%d"}' % number, **JSON)
        yield streams
    finally:
        for stream in streams:
            await trio.aclose_forcefully(stream)


async def vanish(stream):
    """Close the socket; no `close_notify`."""
    await stream.transport_stream.aclose()


async def reset(stream):
    stream.transport_stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.transport_stream.aclose()


async def only_say_goodbye(stream):
    """TLS knows no half-closed connection: who says `close_notify` has left, though the socket stays open a while."""
    await stream.transport_stream.send_all(goodbye_of(stream))
    with trio.fail_after(PATIENCE_S):
        while await stream.transport_stream.receive_some():
            pass
    await stream.transport_stream.aclose()


def goodbye_of(stream):
    with suppress(ssl.SSLWantReadError):
        stream._ssl_object.unwrap()
    return stream._outgoing.read()


async def test_a_shutdown_reaches_clients_over_tls_in_their_protocols_words(tmp_path):
    """`retry` and the end of the response; 1001 with the time to come back."""
    span = {"TRIO_SWARM_LIVENESS__RETRY_MIN_S": "2", "TRIO_SWARM_LIVENESS__RETRY_MAX_S": "2"}
    async with served(tmp_path, **span) as host:
        service = host.service("https")
        async with service.sse("/v1/room/a/events") as sse, service.ws() as ws:
            await sse.next()
            host.process.send_signal(signal.SIGTERM)
            assert await sse.next() is None
            assert 2000 == sse.retry
            assert (1001, "shutting down; retry_ms=2000", []) == await ws.closed()
        assert 0 == await host.wait()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((CERTIFICATE, None), "certfile: TLS needs both files; give keyfile as well"),
        ((None, CERTIFICATE), "keyfile: TLS needs both files; give certfile as well"),
        (("nowhere.pem", CERTIFICATE), "certfile: nowhere.pem cannot be read: No such file or directory"),
        ((CERTIFICATE, HERE), f"keyfile: {HERE} cannot be read: Is a directory"),
        ((HERE / "locked_key.pem", CERTIFICATE), "holds no certificate in PEM"),
        ((CERTIFICATE, __file__), "holds no private key in PEM"),
        ((CERTIFICATE, HERE / "another_key.pem"), "another_key.pem is not the key of the certificate in"),
        ((CERTIFICATE, HERE / "locked_key.pem"), "locked_key.pem is locked with a passphrase, and nobody is here"),
        (("cut.pem", CERTIFICATE), "cut.pem and"),
    ],
)  # fmt: skip
def test_files_that_cannot_serve_are_told_in_a_sentence(tmp_path, monkeypatch, given, sentence):
    """Before anything listens, with exit code 2; never a traceback, never a question on the terminal."""
    monkeypatch.chdir(tmp_path)
    text = Path(CERTIFICATE).read_text()
    Path("cut.pem").write_text(text[: text.index("-----BEGIN CERT") + 100] + "\n-----END CERTIFICATE-----\n")
    options = [
        item for name, path in zip(("--certfile", "--keyfile"), given, strict=True) if path for item in (name, path)
    ]
    done = CliRunner().invoke(main, ["serve", "--bind", "127.0.0.1:0", *map(str, options)])
    assert 2 == done.exit_code, done
    assert sentence in done.output
    assert 1 == len(done.output.splitlines())
