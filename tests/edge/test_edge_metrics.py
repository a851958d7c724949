"""`GET /metrics` of a whole service: what it says adds up, never falls, and does not grow with clients and objects."""

import attrs
import trio
from edge_service import KINDS, open_service, until
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from trio_swarm.demo import Simulation, feed_settings, serve_feed
from trio_swarm.health.metrics import OPENMETRICS, TEXT, MetricsPage
from trio_swarm.objects.durable import DurableObject, exposed
from trio_swarm.settings import Limits, ObjectSettings, Settings

QUICK = Settings(objects=ObjectSettings(grace_s=0.1, backoff_initial_s=0.01, backoff_max_s=0.02))


class Fragile(DurableObject):
    """Falls when told to."""

    @exposed
    async def store(self, value):
        self.storage.put("value", value)

    @exposed
    async def fall(self):
        async def crash():
            raise ValueError("as told")

        self.spawn(crash)


def always_fresh(service):
    service.edge.metrics = MetricsPage(service.swarm.sources.gather, service.swarm.settings, fresh_s=0)


async def scrape(service, accept="*/*"):
    """Every sample by name and labels, and the names of the counters."""
    answer = await service.ask("GET", "/metrics", accept=accept)
    assert answer.status == 200
    read = read_openmetrics if accept.startswith("application/openmetrics") else read_text
    families = list(read(answer.content.decode()))
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }
    assert sum(len(family.samples) for family in families) == len(samples)
    counters = {
        (sample.name, *sorted(sample.labels.items()))
        for family in families
        if family.type in {"counter", "histogram"}
        for sample in family.samples
    }
    return samples, counters


def of(samples, name, **labels):
    return samples[f"trio_swarm_{name}", *sorted(labels.items())]


async def test_it_adds_up():
    """Clients, requests, events and deliveries are those of the test, in both forms."""
    async with open_service() as service:
        always_fresh(service)
        async with (
            service.sse("/v1/room/a/events") as one,
            service.sse("/v1/room/a/events?topics=x") as two,
            service.ws() as three,
        ):
            await one.next()
            await two.next()
            await three.subscribe("room/a")
            for n in range(10):
                await service.publish(n, topic="x" if n % 2 else "y")
            await service.room().say("x", 7, 5)  # one turn, so one write of five events to each
            for _ in range(15):
                await three.next()
            assert (await one.data(15), await two.data(10)) == ([*range(10), *[7] * 5], [1, 3, 5, 7, 9, *[7] * 5])
            assert (await service.ask("GET", "/v1/room/a/history")).status == 200
            assert (await service.ask("GET", "/v1/nothing/a/history")).status == 404
            samples, _ = await scrape(service)
            again, _ = await scrape(service, OPENMETRICS)
        await until(lambda: not len(service.edge.clients))
        after, _ = await scrape(service)
    for found in (samples, again):
        assert (2, 1) == tuple(of(found, "clients", transport=t) for t in ("sse", "websocket"))
        assert (2, 1) == tuple(of(found, "clients_opened_total", transport=t) for t in ("sse", "websocket"))
        assert (15, 40) == (of(found, "events_published_total"), of(found, "events_delivered_total"))
        assert 6 <= of(found, "broadcaster_writes_total") <= 28
        assert (3, 15) == (of(found, "readers", kind="room"), of(found, "journal_events", kind="room"))
        assert (1, 1000) == (
            of(found, "objects", kind="room", state="running"),
            of(found, "objects_limit", kind="room"),
        )
        assert 1 == of(found, "requests_total", action="history", status="200")
        assert 1 == of(found, "requests_total", action="history", status="404")
        assert found["process_resident_memory_bytes",] > 10_000_000
        assert of(found, "connections") >= 3
    assert (0, 0) == tuple(of(after, "clients", transport=t) for t in ("sse", "websocket"))
    assert (2, 15, 40) == (
        of(after, "clients_opened_total", transport="sse"),
        of(after, "events_published_total"),
        of(after, "events_delivered_total"),
    )
    assert (2, 1) == (
        of(after, "requests_total", action="events", status="200"),
        of(after, "requests_total", action="socket", status="101"),
    )


async def test_what_happened_to_a_client():
    """One too many, and one that is ended, are counted by reason."""
    async with open_service(Settings(limits=Limits(connections=1))) as service:
        always_fresh(service)
        async with service.sse("/v1/room/a/events") as stream:
            await stream.next()
            assert (await service.ask("GET", "/v1/room/a/events")).status == 503
            [client] = service.edge.clients
            service.edge.dismiss(client, 4001, "silent")
            while await stream.next() is not None:
                pass
        samples, _ = await scrape(service)
    assert (1, 1) == (of(samples, "clients_refused_total"), of(samples, "clients_ended_total", reason="silent"))
    assert (1, 1) == (of(samples, "clients_limit"), of(samples, "clients_opened_total", transport="sse"))


async def test_counters_never_fall():
    """An object stops, falls, starts again, a feed closes and opens: what was counted stays counted."""
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_feed, Simulation(4), lambda: 0)
        feed = attrs.evolve(feed_settings(url), topics=())
        settings = attrs.evolve(QUICK, feed=(feed,))
        kinds = (*KINDS, Fragile)
        async with open_service(settings, kinds=kinds) as service:
            always_fresh(service)
            hosts = service.swarm.directory.kinds
            before, counters = await scrape(service)
            seen = []
            for turn in range(3):
                await service.swarm.get(Fragile, "one").store(turn)
                await service.swarm.get(Fragile, "one").fall()
                await until(lambda: hosts["fragile"].hosts["one"].failures)
                path = f"/v1/hub/{feed.name}/events"
                async with service.sse(f"{path}?topics=*"), service.sse(path) as stream:
                    while (await stream.next()).event != "message":
                        pass
                await until(lambda: not any(hosts[kind].hosts for kind in ("fragile", "hub")))
                samples, now = await scrape(service)
                assert {key for key in counters if samples.get(key, -1) < before[key]} == set()
                seen.append(
                    (
                        of(samples, "object_failures_total", kind="fragile"),
                        of(samples, "commits_total"),
                        of(samples, "feed_connects_total", feed=feed.name),
                        of(samples, "feed_state", feed=feed.name, state="closed"),
                    )
                )
                assert of(samples, "feed_events_total", feed=feed.name) > turn
                assert of(samples, "object_starts_total", kind="fragile") == turn + 1
                before, counters = samples, now
            assert seen == [(1, 1, 1, 1), (2, 2, 2, 1), (3, 3, 3, 1)]
        nursery.cancel_scope.cancel()


async def test_series_do_not_grow():
    """A thousand objects and fifty clients make not one series more."""
    async with open_service() as service:
        always_fresh(service)
        async with service.sse("/v1/room/0/events") as stream:
            await stream.next()
            await service.publish(0, id="0")
            await stream.next()
            await scrape(service)
            few, _ = await scrape(service)
            async with trio.open_nursery() as nursery:
                for n in range(1_000):
                    nursery.start_soon(service.room(f"{n}").say, "t", n)
            async with trio.open_nursery() as nursery:
                ready = []

                async def read(n):
                    async with service.sse(f"/v1/room/{n}/events") as stream:
                        await stream.next()
                        ready.append(n)
                        await trio.sleep_forever()

                for n in range(50):
                    nursery.start_soon(read, n)
                await until(lambda: len(ready) == 50)
                many, _ = await scrape(service)
                nursery.cancel_scope.cancel()
    assert of(many, "objects", kind="room", state="running") == 1_000
    assert set(many) - set(few) == set()


async def test_how_it_is_asked_for():
    """Both forms by Accept, HEAD, other methods, and a service without."""
    async with open_service() as service:
        for accept, form in (
            ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", OPENMETRICS),
            ("text/plain", TEXT),
            ("*/*", TEXT),
            ("application/openmetrics-text;q=0", TEXT),
            ("text/html,application/xhtml+xml", TEXT),
            (";;,,=application/openmetrics-text", TEXT),
        ):
            answer = await service.ask("GET", "/metrics", accept=accept)
            assert (200, form.encode()) == (answer.status, answer.headers[b"content-type"]), accept
        get, head = await service.ask("GET", "/metrics"), await service.ask("HEAD", "/metrics")
        assert (200, b"", b"%d" % len(get.content)) == (head.status, head.content, head.headers[b"content-length"])
        assert (405, "method_not_allowed") == (await service.ask("POST", "/metrics")).code
        assert service.edge.metrics.written == 2  # one of each form, whoever asks, within a second
    async with open_service(Settings(metrics=False)) as service:
        assert (404, "not_found") == (await service.ask("GET", "/metrics")).code
