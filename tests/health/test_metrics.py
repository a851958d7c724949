"""Metrics as Prometheus wants them, one page at a time, and the table in docs/metrics.md."""

import re
import time
from collections import Counter
from pathlib import Path

import pytest
import trio
import yaml
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from trio_swarm import DurableObject, open_swarm
from trio_swarm.health import metrics
from trio_swarm.health.loop_delay import BUCKETS_S, LoopDelay
from trio_swarm.health.metric import Moment
from trio_swarm.health.metric_table import LOOP_DELAY, METRICS
from trio_swarm.health.metrics import OPENMETRICS, PARTS, TEXT, MetricsPage, write_metrics
from trio_swarm.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


class Still(DurableObject):
    pass


def test_names():
    """Prefix, lower case, base units; `_total` for counters and for nothing else; a sentence; none twice."""
    names = [metric.name for metric in METRICS]
    assert [name for name, count in Counter([*names, LOOP_DELAY[0]]).items() if count > 1] == []
    for metric in METRICS:
        assert re.fullmatch(r"trio_swarm(_[a-z]+)+", metric.name), metric.name
        assert metric.name.endswith("_total") == (metric.type == "counter"), metric.name
        assert not re.search(r"_(count|sum|bucket|gauge|counter|histogram|ms|s|kb|mb|kib|mib|percent)$", metric.name)
        assert not re.search(r"_(milliseconds|minutes|hours|kilobytes|megabytes|bits)", metric.name)
        assert metric.help.endswith("."), metric.name
        assert "\n" not in metric.help
        assert set(metric.labels) <= {
            "transport",
            "reason",
            "action",
            "status",
            "kind",
            "state",
            "lane",
            "feed",
            "version",
            "outcome",
        }


async def test_a_page_is_what_prometheus_reads():
    """Each family once, with HELP before TYPE before its samples, and every line of the form that is promised."""
    async with open_swarm(objects=[Still]) as swarm:
        moment = Moment(swarm.sources.gather(PARTS), swarm.settings, trio.current_time())
        text = write_metrics(moment, TEXT).decode()
        ended = write_metrics(moment, OPENMETRICS).decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation and family.type != "unknown" for family in families)
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if line.startswith("# TYPE"):
            assert lines[index - 1].startswith(f"# HELP {line.split()[2]} ")
    sample = re.compile(r'[a-z_]+(\{[a-z_]+="[^"\n]*"(,[a-z_]+="[^"\n]*")*\})? [0-9.eE+-]+(Inf|NaN)?')
    assert [line for line in lines if not line.startswith("#") and not sample.fullmatch(line)] == []
    assert ended.endswith("# EOF\n")


class Slow:
    """A writer that shows how many write at once."""

    def __init__(self):
        self.now = self.most = self.pages = 0

    def __call__(self, moment, form):
        self.now += 1
        self.most = max(self.most, self.now)
        self.pages += 1
        time.sleep(0.05)
        self.now -= 1
        return b"%d" % self.pages


@pytest.fixture
def slow(monkeypatch):
    slow = Slow()
    monkeypatch.setattr(metrics, "write_metrics", slow)
    return slow


async def test_many_scrapers_share_one_page(slow, mock_clock):
    """A hundred who ask at once get one page; within a second everybody gets the same; then there is a new one."""
    async with open_swarm(objects=[Still]) as swarm:
        page = MetricsPage(swarm.sources.gather, Settings())
        got = []

        async def ask():
            got.append(await page.page(TEXT))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
        assert ([b"1"] * 100, 1) == (got, slow.pages)
        mock_clock.jump(0.5)
        assert await page.page(TEXT) == b"1"
        mock_clock.jump(0.6)
        assert (await page.page(TEXT), await page.page(OPENMETRICS), page.written) == (b"2", b"3", 3)


async def test_one_is_written_at_a_time(slow):
    """Without any patience too: whoever asks while one is written waits for the next, and all of those share it."""
    async with open_swarm(objects=[Still]) as swarm:
        page = MetricsPage(swarm.sources.gather, Settings(), fresh_s=0)
        async with trio.open_nursery() as nursery:
            for form in (TEXT, OPENMETRICS):
                for _ in range(20):
                    nursery.start_soon(page.page, form)
            await trio.sleep(0.02)
            for _ in range(20):
                nursery.start_soon(page.page, TEXT)
        assert (1, True) == (slow.most, slow.pages <= 3)


async def test_who_leaves_takes_nothing_along(slow):
    """A scraper that goes away while its page is written leaves the others theirs."""
    async with open_swarm(objects=[Still]) as swarm:
        page = MetricsPage(swarm.sources.gather, Settings())
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.01):
                await page.page(TEXT)
            nursery.start_soon(page.page, TEXT)
        assert (1, 1) == (slow.most, slow.pages)


def test_loop_delay():
    """A look that comes late is counted by how late it is."""

    async def main():
        delay = LoopDelay()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(delay.run)
            for late in (0.0, 0.3, 60.0):
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(0.5 + late)
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return delay.statistics()

    clock = MockClock()
    said = trio.run(main, clock=clock)
    assert 3 == said.looks
    assert 60.3 == pytest.approx(said.delay_s)
    assert {0: 1, BUCKETS_S.index(0.5): 1, len(BUCKETS_S): 1} == {n: c for n, c in enumerate(said.buckets) if c}


def in_page():
    return {
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    }


def test_the_page_lists_them_all():
    """docs/metrics.md has each metric with its type and labels, and no other."""
    code = {(metric.name, metric.type, metric.labels) for metric in METRICS} | {(LOOP_DELAY[0], "histogram", ())}
    assert (code - in_page(), in_page() - code) == (set(), set())


def test_alert_rules_are_yaml_about_metrics_that_exist():
    """The examples are YAML, each with a name and an expression, about names that there are."""
    [text] = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    known = {metric.name for metric in METRICS} | {LOOP_DELAY[0]}
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert len(rules) >= 4
    for rule in rules:
        used = re.findall(r"trio_swarm_\w+", rule["expr"])
        assert used, rule
        assert {re.sub(r"_(bucket|sum|count)$", "", name) if name not in known else name for name in used} <= known
        assert {"alert", "expr", "annotations"} <= set(rule)
