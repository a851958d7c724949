"""Behind Debian's nginx, as `deploy/nginx.conf` has it and as nginx is without that."""

import os
import re
import socket
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from edge_service import CERTIFICATE, PATIENCE_S, client_context, open_service, quick, until
from hosting_rig import JSON, at, http2

NGINX = "/usr/sbin/nginx"
CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"
ELSEWHERE = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")  # nginx keeps files for each, by default not ours


@asynccontextmanager
async def nginx(folder, service, *changes):
    """Run it in front of a service; gives its clients. `changes` are made to the configuration, and have to apply."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        port = listening.getsockname()[1]
        replaced = [
            ("/run/nginx.pid", f"{folder}/pid"),
            ("/var/log/nginx/error.log", f"{folder}/errors"),
            ("worker_processes auto", f"daemon off; {'user root; ' if os.getuid() == 0 else ''}worker_processes 1"),
            ("worker_rlimit_nofile 65536;", ""),
            ("worker_connections 32768", "worker_connections 512"),
            ("http {", "http {" + "".join(f"{name}_temp_path {folder}/{name}; " for name in ELSEWHERE)),
            ("server 127.0.0.1:8000", f"server {service.host}:{service.port}"),
            ("listen 443", f"listen 127.0.0.1:{port}"),
            ("/etc/nginx/live.pem", CERTIFICATE),
            ("/etc/nginx/live.key", CERTIFICATE),
            *changes,
        ]
        text = CONFIGURATION.read_text()
        for old, new in replaced:
            assert old in text, old
            text = text.replace(old, new)
        (folder / "nginx.conf").write_text(text)
        listening.setblocking(False)
        # nginx takes over a listening socket that it is told of in this way: no port can be lost to another process.
        process = subprocess.Popen(  # noqa: ASYNC220 - a moment
            [NGINX, "-p", str(folder), "-e", str(folder / "errors"), "-c", str(folder / "nginx.conf")],
            env={"NGINX": f"{listening.fileno()};"},
            pass_fds=[listening.fileno()],
        )
    try:
        yield at("127.0.0.1", port, tls=True)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
    problems = re.findall(r".*\[(?:error|crit|alert|emerg)\].*", (folder / "errors").read_text())
    assert [] == [line for line in problems if "access forbidden by rule" not in line]


def http2_client():
    return httpx.AsyncClient(http2=True, verify=client_context(), timeout=PATIENCE_S)


@pytest.mark.parametrize("changes", [(), [("gzip on", "proxy_buffering off; gzip on")]], ids=["buffering", "direct"])
async def test_everything_goes_through_the_recommended_proxy(tmp_path, changes):
    """Events come one by one, over HTTP/1.1 and HTTP/2, WebSockets too; who leaves is noticed."""
    async with open_service() as service, nginx(tmp_path, service, *changes) as proxied, http2_client() as client:
        url = f"https://localhost:{proxied.port}"
        for number in range(3):
            sent = await client.post(f"{url}/v1/room/a/publish", json={"data": number})
            assert ("HTTP/2", 200) == (sent.http_version, sent.status_code)
        big = await client.post(f"{url}/v1/room/b/publish", json={"data": "x" * 90_000})
        assert 200 == big.status_code
        long = await client.get(f"{url}/v1/room/b/history")
        assert "gzip" == long.headers["content-encoding"]
        assert ["x" * 90_000] == [event["data"] for event in long.json()["events"]]

        async with (
            proxied.sse("/v1/room/a/events?since=0-0", accept_encoding="gzip") as sse,
            http2(proxied) as stream,
            proxied.ws() as ws,
        ):
            await stream.ask((":method", "GET"), (":path", "/v1/room/a/events?since=0-0"))
            assert "hello" == (await sse.next()).event
            assert [0, 1, 2] == await sse.data(3)
            await stream.until(lambda: b"data: 2\n" in stream.body)
            assert 200 == stream.status
            assert (await ws.subscribe("room/a", since="0-0"))["recovered"]
            assert [0, 1, 2] == [(await ws.next())["data"] for _ in range(3)]
            for number in range(3, 6):  # nothing else follows that could push it out of a buffer
                await service.publish(number)
                assert [number] == await sse.data(1)
                await stream.until(lambda data=b"data: %d\n" % number: data in stream.body)
                assert number == (await ws.next())["data"]
            assert [True] * 3 == [client["direct"] for client in service.edge.tree()]
            theirs = "{}:{}".format(*sse.http.stream.transport_stream.socket.getsockname())
            assert theirs not in {client["address"] for client in service.edge.tree()}
        await until(lambda: not len(service.edge.clients))

        async with proxied.sse("/v1/room/a/events") as sse:
            await sse.next()
            sse.http.stream.transport_stream.socket.close()  # without a word
            await until(lambda: not len(service.edge.clients))


async def test_a_proxy_that_speaks_http_1_0_is_told_so(tmp_path):
    """As nginx does by itself: a stream is refused with what to write, all else is answered."""
    before = ("            proxy_http_version 1.1;\n            proxy_set_header Host", "proxy_set_header Host")
    async with open_service() as service, nginx(tmp_path, service, before) as proxied:
        answer = await proxied.ask("POST", "/v1/room/a/publish", b'{"data":1}', **JSON)
        assert 200 == answer.status
        answer = await proxied.ask("GET", "/v1/room/a/events")
        assert (505, "http_version") == answer.code
        assert "`proxy_http_version 1.1`" in answer.json["error"]["message"]
        answer = await proxied.ask("GET", "/v1/ws", upgrade="websocket", connection="upgrade")
        assert (505, "http_version") == answer.code
        assert [1] == [event["data"] for event in (await proxied.ask("GET", "/v1/room/a/history")).json["events"]]


async def test_a_quiet_stream_outlives_the_proxys_patience(tmp_path):
    """The heartbeat is shorter than `proxy_read_timeout`, here a sixtieth of both."""
    settings = quick(ping_s=10 / 60, dead_s=30.0)
    patience = ("proxy_read_timeout 60s", "proxy_read_timeout 1s")
    async with (
        open_service(settings) as service,
        nginx(tmp_path, service, patience) as proxied,
        proxied.sse("/v1/room/a/events") as sse,
        proxied.ws() as ws,
    ):
        await sse.next()
        await ws.subscribe("room/a")
        await trio.sleep(2.5)  # the proxy's clock
        assert 2 == len(service.edge.clients)
        await service.publish("still here")
        assert ["still here"] == await sse.data(1)
        assert "still here" == (await ws.next())["data"]


async def test_a_shutdown_comes_through_and_metrics_do_not(tmp_path):
    """`retry` and 1001 reach the clients; what is for this machine is refused to others."""
    async with open_service(quick(retry_min_s=2, retry_max_s=2)) as service, nginx(tmp_path, service) as proxied:
        answer = await proxied.ask("GET", "/metrics")
        assert 403 != answer.status
        outside = httpx.AsyncHTTPTransport(verify=client_context(), local_address="127.0.0.2")
        async with httpx.AsyncClient(transport=outside) as client:
            refused = await client.get(f"https://localhost:{proxied.port}/metrics")
            assert 403 == refused.status_code
            assert 200 == (await client.get(f"https://localhost:{proxied.port}/healthz")).status_code
        async with proxied.sse("/v1/room/a/events") as sse, proxied.ws() as ws:
            await sse.next()
            service.shutdown.set()
            assert await sse.next() is None
            assert 2000 == sse.retry
            assert (1001, "shutting down; retry_ms=2000", []) == await ws.closed()
