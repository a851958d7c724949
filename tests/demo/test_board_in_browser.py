"""The page in a real Chromium, on a real service: what it shows is what the hub published."""

import json
import shutil
import time
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from trio_swarm.asgi import create_app
from trio_swarm.demo import Simulation, feed_settings, page_routes, serve_feed
from trio_swarm.edge.worker import serve
from trio_swarm.journal.event import START
from trio_swarm.settings import LivenessSettings, Settings

CHROMIUM = shutil.which("chromium")

# What each row of the board shows: the match, and everything about it that moves.
READ = """() => [...document.querySelectorAll('.match')].map(row => [
    row.dataset.match, row.dataset.phase, row.querySelector('.minute').textContent,
    ...['.home .score', '.away .score'].map(part => row.querySelector(part).textContent),
    ...[...row.querySelectorAll('.odds b')].map(price => price.textContent),
])"""

# Animations that change anything: the word for a goal is there for a while, and then is not.
MOVING = """() => document.getAnimations().filter(each => new Set(each.effect.getKeyframes().map(
    ({offset, computedOffset, easing, composite, ...shown}) => JSON.stringify(shown)
)).size > 1).length"""


@pytest.fixture
def browse():
    """Open a URL in Chromium and run blocking `steps(page)` in a thread beside it; the page must have no errors."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

    def run(url, steps, options):
        errors = []
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(**options)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(url)
            steps(page)
            browser.close()
        assert errors == []

    async def browse(url, steps, **options):
        await trio.to_thread.run_sync(run, url, steps, options)

    return browse


@asynccontextmanager
async def open_demo(feed, bind="127.0.0.1:0"):
    """The demonstration in this process: its URL, its app, and an event that ends it."""
    settings = Settings(
        bind=bind, feed=(feed_settings(feed),), liveness=LivenessSettings(retry_min_s=0.2, retry_max_s=0.4)
    )
    app = create_app(settings=settings, pages=page_routes())
    ending = trio.Event()
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(serve, app, settings, shutdown_trigger=ending.wait))
        yield url, app
        ending.set()


async def published(app):
    """What the hub has published, match by match, as a row shows it."""
    events, gap = await app.swarm.get("hub", "demo").history(None, START, 10_000)
    assert not gap
    rows = {}
    for event in events:
        frame = json.loads(event.data)
        rows.setdefault(frame["match"], []).append(as_row(frame))
    return rows


def as_row(frame):
    scores = ["", ""] if frame["phase"] == "soon" else [str(goals) for goals in frame["score"]]
    prices = (
        ["\N{EN DASH}"] * 3
        if frame["odds"] is None
        else [as_price(frame["odds"][side]) for side in ("home", "draw", "away")]
    )
    return [frame["match"], frame["phase"], frame["minute"] or "Soon", *scores, *prices]


def as_price(odds):
    return f"{odds:.{2 if odds < 10 else 1 if odds < 20 else 0}f}"


@pytest.mark.browser
async def test_the_board_shows_what_the_hub_published(browse):
    """Every row is a frame of its match, later moments show later frames, and clocks and prices move."""
    seen = []

    def steps(page):
        page.locator(".match").nth(11).wait_for(timeout=10_000)
        for _ in range(4):
            seen.append(page.evaluate(READ))
            page.wait_for_timeout(1100)
        assert page.inner_text("#state-text") == "Live"
        assert int(page.inner_text("#rate")) > 2
        assert 0 <= int(page.inner_text("#latency")) < 2000

    async with trio.open_nursery() as nursery:
        feed = await nursery.start(serve_feed, Simulation(8), _now_ms)
        async with open_demo(feed) as (url, app):
            await browse(f"{url}/", steps)
            frames = await published(app)
        nursery.cancel_scope.cancel()
    newest = {}
    for rows in seen:
        for row in rows:
            match = row[0]
            where = [place for place, frame in enumerate(frames[match]) if frame == row]
            assert where, f"the hub never published {row}"
            assert where[-1] >= newest.get(match, 0)
            newest[match] = next(place for place in where if place >= newest.get(match, 0))
    for column in (2, 5):  # the minute, the first price
        assert [row[column] for row in seen[0]] != [row[column] for row in seen[-1]]


@pytest.mark.browser
async def test_it_comes_back_by_itself(browse):
    """When the service restarts the page says so, then goes on, without being loaded again."""
    drawn, done = trio.Event(), trio.Event()

    def steps(page):
        page.locator(".match").nth(11).wait_for(timeout=10_000)
        page.evaluate("window.same = true")
        trio.from_thread.run_sync(drawn.set)
        page.get_by_text("Reconnecting", exact=True).wait_for(timeout=10_000)
        before = page.evaluate(READ)
        page.get_by_text("Live", exact=True).wait_for(timeout=10_000)
        page.wait_for_timeout(2500)
        assert page.evaluate("window.same")
        assert page.evaluate(READ) != before

    async def browse_on(url):
        await browse(f"{url}/", steps)
        done.set()

    async with trio.open_nursery() as nursery:
        feed = await nursery.start(serve_feed, Simulation(9), _now_ms)
        async with open_demo(feed) as (url, _):
            nursery.start_soon(browse_on, url)
            await drawn.wait()
        async with open_demo(feed, url.removeprefix("http://")) as (again, _):
            assert again == url
            await done.wait()
        nursery.cancel_scope.cancel()


@pytest.mark.browser
async def test_it_fits_a_phone(browse):
    """At a width of 400 pixels nothing is cut off to the right, and reduced motion is respected."""

    def steps(page):
        page.locator(".match").nth(11).wait_for(timeout=10_000)
        page.wait_for_timeout(1500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert page.evaluate(MOVING) == 0

    async with trio.open_nursery() as nursery:
        feed = await nursery.start(serve_feed, Simulation(10), _now_ms)
        async with open_demo(feed) as (url, _):
            await browse(f"{url}/", steps, viewport={"width": 400, "height": 860}, reduced_motion="reduce")
        nursery.cancel_scope.cancel()


def _now_ms():
    return time.time_ns() // 1_000_000
