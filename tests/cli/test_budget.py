"""`trio-swarm budget`: the worst case of the settings in force."""

import json

import attrs
import pytest

from trio_swarm.health.budget import Row, make_budget
from trio_swarm.settings import FeedSettings, JournalSettings, Limits, Settings


def told(invoke, *arguments):
    result = invoke("budget", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_rows_are_products_and_the_total_their_sum(invoke):
    """Each row is a count times a size, the total is their sum, and the table shows the same."""
    counted = told(invoke)
    assert [row["count"] * row["size_bytes"] for row in counted["rows"]] == [row["bytes"] for row in counted["rows"]]
    assert counted["total_bytes"] == sum(row["bytes"] for row in counted["rows"])
    assert counted["kernel_bytes"] == sum(row["bytes"] for row in counted["kernel"])
    table = invoke("budget").output
    for row in [*counted["rows"], *counted["kernel"]]:
        assert f"{row['part']} " in table


def test_options_and_environment_count(invoke, monkeypatch, tmp_path):
    """It counts what `serve` would have: a file's settings, the environment's, a feed, a module's classes."""
    before = {row["part"]: row["bytes"] for row in told(invoke)["rows"]}
    (tmp_path / "small.toml").write_text("limits.connections = 100\n")
    (tmp_path / "counted_arena.py").write_text(
        "from trio_swarm.objects.durable import DurableObject\nclass Arena(DurableObject): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIO_SWARM_LIMITS__BODIES_BYTES", "2000000")
    feed = "--feed=cb=coinbase:wss://host/path#BTC-USD"
    after = {
        row["part"]: row["bytes"]
        for row in told(invoke, "--config", "small.toml", feed, "--objects", "counted_arena")["rows"]
    }
    assert after["requests under way"] == 2_000_000
    assert after["connections"] * 90 < before["connections"]
    assert after["live objects"] > 2 * before["live objects"]
    assert set(after) - set(before) == {
        "feeds' frames", "feeds' messages in lanes", "feeds' large events on their way", "numbers of feeds' topics",
    }  # fmt: skip


def test_a_mistake_is_one_sentence(invoke):
    """Settings that `serve` refuses are refused here, with code 2."""
    result = invoke("budget", "--config", "/absent.toml")
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1


def test_a_machine_that_is_too_small(invoke, monkeypatch):
    """Where the machine has less than the total, the table says so."""
    assert "less than the total" not in invoke("budget").output
    monkeypatch.setenv("TRIO_SWARM_LIMITS__LIVE_JOURNAL_BYTES", str(2**45))
    monkeypatch.setenv("TRIO_SWARM_LIMITS__OBJECTS_PER_KIND", "1000000")
    assert "less than the total" in invoke("budget").output


# Settings whose effect on memory is none, or is another's: a time, a number that another bound stands before.
NO_BYTES = {
    "limits.event_bytes", "limits.body_bytes", "limits.message_bytes", "limits.topics_per_subscription",
    "limits.streams_per_connection", "limits.keys_per_journal",
}  # fmt: skip


def test_every_limit_is_counted_or_said_not_to_be():
    """Ten times as much of any limit makes the budget larger, but for those that another limit bounds."""
    settings = Settings(
        limits=Limits(live_journal_bytes=2**40),
        journal=JournalSettings(),
        feed=(FeedSettings("one", "ws://localhost/"),),
    )
    total = make_budget(settings).total
    without_effect = set()
    for field in attrs.fields(Limits):
        limits = attrs.evolve(settings.limits, **{field.name: 10 * getattr(settings.limits, field.name)})
        if make_budget(attrs.evolve(settings, limits=limits)).total <= total:
            without_effect.add(f"limits.{field.name}")
    assert without_effect - NO_BYTES == {"limits.live_journal_bytes"}


@pytest.mark.parametrize("settings", [Settings(), Settings(certfile="a.pem", keyfile="b.pem"), Settings(store="a.db")])
def test_every_named_setting_exists(settings):
    """What a row names as its cause can be set under that name."""
    counted = make_budget(attrs.evolve(settings, feed=(FeedSettings("one", "ws://localhost/"),)))
    for row in (*counted.rows, *counted.kernel):
        assert isinstance(row, Row)
        for name in row.settings:
            value = settings
            for part in name.split("."):
                value = getattr(value, part)
