"""All statistics in one place, as plain data."""

import json

import attrs

from trio_swarm.health.statistics import Sources


@attrs.frozen
class Inner:
    by_kind: dict


def test_sources_and_their_plain_data():
    """A source is asked each time, under its name; keys of several parts become one text."""
    now = 100.0
    sources = Sources(lambda: now)
    sources.add("one", lambda: Inner({("get", 200): 3}))
    sources.add("two", lambda: (Inner({}), Inner({"a": 1})))
    now = 102.5
    told = json.loads(json.dumps(sources.gather().plain()))
    assert told.pop("process")["rss_bytes"] > 1_000_000
    two = [{"by_kind": {}}, {"by_kind": {"a": 1}}]
    assert told == {"uptime_s": 2.5, "one": {"by_kind": {"get 200": 3}}, "two": two}
