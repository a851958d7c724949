"""`trio-swarm demo` as a process: feed, hub and page, over the public routes."""

import json
import re

import httpx


async def test_the_demo(child, read_events):
    """The page is at `/`; the hub has every match, each frame once and in order; Ctrl-C ends it."""
    async with child("demo", "--bind", "127.0.0.1:0", "--seed", "5") as demo:
        assert demo.lines[0].startswith("Live board: http://127.0.0.1:")
        async with httpx.AsyncClient(base_url=demo.url, timeout=10) as client:
            page = await client.get("/")
            assert page.headers["content-type"].startswith("text/html")
            assert "default-src 'none'" in page.headers["content-security-policy"]
            for path in set(re.findall(r'(?:src|href)="(/[^"]+)"', page.text)):
                assert (await client.get(path)).status_code == 200
            script = (await client.get("/demo.js")).text
            assert set(re.findall(r'"(/[a-z0-9/]+)"', script)) == {"/v1/hub/demo/events"}
        events = await read_events(f"{demo.url}/v1/hub/demo/events?since=0-0", 40)
        frames = [json.loads(event.data) for event in events if event.type == "message"]
        newest: dict[str, int] = {}
        for frame in frames:
            assert frame["sequence"] == newest.get(frame["match"], 0) + 1
            newest[frame["match"]] = frame["sequence"]
        assert len(newest) >= 12
        assert await demo.end() == 0
        assert not [line for line in demo.lines if "Traceback" in line]
