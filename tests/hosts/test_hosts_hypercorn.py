"""Under a plain `hypercorn -k trio`: with our connections, with its own, and on a worker that cannot run us."""

import json
import signal

import httpx
import pytest
from edge_service import PATIENCE_S, client_context
from hosting_rig import HERE, TLS, by_path, http2, hypercorn, running, use

BOTH = (*TLS, "--bind", "127.0.0.1:0", "--insecure-bind", "127.0.0.1:0")


async def test_our_connections_serve_whatever_the_host_listens_on(tmp_path):
    """Over IPv4, IPv6 and a Unix socket events go straight to the socket, over TLS through ASGI; with an access log."""
    path = tmp_path / "socket"
    ways = (*BOTH, "--insecure-bind", "[::1]:0", "--insecure-bind", f"unix:{path}", "--access-logfile", "-")
    async with hypercorn(tmp_path / "log", "hosted:app", *ways, binds=4) as host:
        await use(host.service(), direct=True)
        await use(host.service(host="[::1]"), direct=True)
        await use(host.service("https"), direct=False)
        await use(by_path(path), direct=True)
        async with host.service("http", "[::1]").sse("/v1/room/a/events"):
            [client] = (await host.service().ask("GET", "/clients")).json
            assert client["address"].startswith("[::1]:")
        assert 0 == await host.end()
        assert "host_connections_kept" not in host.log
        assert '"GET /v1/room/r0/events' in host.log


async def test_the_application_that_is_made_from_the_environment(tmp_path):
    """`hypercorn -k trio trio_swarm.asgi:app` needs no code; its streams hear of the shutdown in their own words."""
    settings = tmp_path / "settings.toml"
    settings.write_text("[liveness]\nretry_min_s = 2\nretry_max_s = 2\n")
    with_settings = {"TRIO_SWARM_CONFIG": str(settings), "TRIO_SWARM_LIMITS__CONNECTIONS": "3"}
    log = tmp_path / "log"
    async with hypercorn(log, "trio_swarm.asgi:app", "--bind", "127.0.0.1:0", **with_settings) as host:
        service = host.service()
        async with service.sse("/v1/channel/a/events") as sse, service.ws() as ws, service.ws():
            await sse.next()
            assert (503, "too_many_connections") == (await service.ask("GET", "/v1/channel/a/events")).code
            host.process.send_signal(signal.SIGTERM)
            assert await sse.next() is None
            assert 2000 == sse.retry
            assert (1001, "shutting down; retry_ms=2000", []) == await ws.closed()
        assert 0 == await host.wait()


@pytest.mark.parametrize("lack", ["other_release", "moved_module"])
async def test_where_the_inside_is_not_known_the_hosts_own_connections_serve(tmp_path, lack):
    """Another release, or a module that has moved: everything works through ASGI, and one line says so.

    Over HTTP/2, which those connections offer, requests are answered, and streams refused with what to do.
    """
    ways = (*BOTH, "--graceful-timeout", "1")
    async with hypercorn(tmp_path / "log", "hosted:app", *ways, binds=2, path=[HERE / lack]) as host:
        await use(host.service(), direct=False)
        await use(host.service("https"), direct=False)
        [said] = [line for line in host.log.splitlines() if "host_connections_kept" in line]
        assert ("0.19.1" if lack == "other_release" else "no module named hypercorn.protocol") in said
        assert "any client can end the service" in said
        if lack == "other_release":
            await over_http2(host.service("https"))
        async with host.service().sse("/v1/room/a/events") as sse, host.service().ws():
            await sse.next()
            host.process.send_signal(signal.SIGTERM)
            assert 0 == await host.wait()


@pytest.mark.parametrize("lack", ["other_release", "moved_module"])
async def test_our_own_commands_refuse_what_any_client_could_end(tmp_path, lack):
    """`serve` and `demo` end with 2 and one sentence before they listen; `check` says the same, with all else."""
    said = {}
    for command in ("serve", "demo", "check"):
        log = tmp_path / command
        async with running(log, "trio-swarm", command, "--bind", "127.0.0.1:0", binds=0, path=[HERE / lack]) as host:
            assert 2 == await host.wait()
            said[command] = host.log
    known = "0.19.1" if lack == "other_release" else "no module named hypercorn.protocol"
    assert 1 == said["serve"].count("\n")
    for word in (known, "any client can end the service", "pip install 'hypercorn==0.18.*'"):
        assert word in said["serve"]
    assert said["serve"] == said["demo"]
    [line] = [line for line in said["check"].splitlines() if line.startswith("fails")]
    assert said["serve"].strip().removeprefix("Error: ") == line.partition(": ")[2]
    assert "ok      classes: " in said["check"]


async def over_http2(service):
    url = f"https://localhost:{service.port}"
    async with httpx.AsyncClient(http2=True, verify=client_context("h2"), timeout=PATIENCE_S) as client:
        published = await client.post(f"{url}/v1/room/h2/publish", json={"data": 1})
        assert ("HTTP/2", 200, 1) == (published.http_version, published.status_code, published.json()["count"])
        history = await client.get(f"{url}/v1/room/h2/history")
        assert [1] == [event["data"] for event in history.json()["events"]]
        for method in ("GET", "HEAD"):
            refused = await client.request(method, f"{url}/v1/room/h2/events")
            assert ("HTTP/2", 505) == (refused.http_version, refused.status_code)
        refused = await client.get(f"{url}/v1/room/h2/events")
        assert "http_version" == refused.json()["error"]["code"]
        assert "this is HTTP/2" in refused.json()["error"]["message"]
    async with http2(service) as connection:  # a WebSocket, by RFC 8441
        version = ("sec-websocket-version", "13")
        await connection.ask((":method", "CONNECT"), (":protocol", "websocket"), (":path", "/v1/ws"), version)
        await connection.until(lambda: connection.ended)
        assert (505, "http_version") == (connection.status, json.loads(connection.body)["error"]["code"])


async def test_a_worker_that_does_not_run_trio_is_refused(tmp_path):
    """One sentence says how to start the host; it does not begin to listen."""
    log = tmp_path / "log"
    async with hypercorn(log, "hosted:app", "--bind", "127.0.0.1:0", binds=0, worker="asyncio") as host:
        await host.wait()  # with 0: Hypercorn's master forgets what its workers ended with
        assert "trio_swarm runs on Trio: start the host with -k trio" in host.log
        assert "Running on" not in host.log
        host.log_file.write_text("")  # the host's own traceback is not ours
