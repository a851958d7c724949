"""Whatever an upstream does: a feed against lists of behaviours, and the design's states and delays."""

import random
from functools import partial

import pytest
import trio
from feed_owner import SEED, run_script
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_swarm.testing.upstream import (
    Answer,
    Corrupt,
    Flood,
    Garbage,
    Good,
    Hang,
    HangUp,
    Refuse,
    Reject,
    Silence,
    Vanish,
)

pytestmark = pytest.mark.usefixtures("small_heap")


def in_virtual_time(main, *args):
    trio.run(partial(main, *args), clock=MockClock(autojump_threshold=0))


# The model: what each behaviour means for a feed, and what follows by the design.

seconds = st.sampled_from([0.5, 3.0, 14.0, 61.0, 99.0])  # never when a ping is due
behaviours = st.one_of(
    st.just(Refuse()),
    st.just(Reject()),
    st.just(Hang()),
    st.just(HangUp()),
    st.just(Answer()),
    st.just(Corrupt()),
    seconds.map(Good),
    seconds.map(Vanish),
    seconds.map(Silence),
    seconds.map(lambda s: Garbage(seconds=s)),
    seconds.map(lambda s: Flood(40, seconds=s)),
)


def meaning(behaviour):
    """How long such a connection lasts, whether it came up, and why it ended."""
    match behaviour:
        case Refuse():
            said = 0.0, False, "cannot connect to upstream.test: connection refused"
        case Reject(status):
            said = 0.0, False, f"refused with HTTP {status}"
        case Hang():
            said = 30.0, False, "no connection within 30 s"
        case HangUp():
            said = 0.0, False, "hung up during the handshake"
        case Answer():
            said = 0.0, False, "broke the WebSocket protocol"
        case Corrupt():
            said = 0.0, True, "1002"
        case Good(s):
            said = s, True, "closed with 1001 (as the script says)"
        case Vanish(s):
            said = s, True, "broke off"
        case Silence(s):
            said = s // 10 * 10 + 30.0, True, "silent for 30 s"  # the last byte was the answer to a ping
        case Garbage(_, s) | Flood(_, s):
            said = s, True, "closed with 1000"
    return said


def expected(script):
    """Attempts and states by the words of the design, the jitter drawn from the same seed."""
    rng = random.Random(SEED)
    now, state, ceiling, fresh = 0.0, "connecting", 1.0, True
    recent, attempts, states = [], [], [(0.0, "connecting", "")]
    for behaviour in [*script, None]:
        attempts.append(now)
        lasts, success, reason = (0.0, True, "") if behaviour is None else meaning(behaviour)
        if success:
            ceiling, fresh = 1.0, True
            states.append((now, "live", ""))
            state = "live"
        if behaviour is None:
            return attempts, states
        now += lasts
        if fresh:
            recent = [at for at in recent if now - at < 60.0]
        fresh = False
        if len(recent) >= 3:
            after, delay = "down", 30.0
        else:
            recent.append(now)
            after, delay = "connecting", rng.uniform(0.0, ceiling)
            ceiling = min(ceiling * 2, 30.0)
        if after != state:
            state = after
            states.append((now, after, reason))
        now += delay
    raise AssertionError


@settings(max_examples=100, deadline=None)
@given(st.lists(behaviours, max_size=9))
def test_whatever_an_upstream_does_the_feed_is_where_the_design_says(script):
    """Any list of behaviours: the designed states with reasons, attempts at the designed times, and live at the end."""
    attempts, states = expected(script)

    async def until(owner):
        await owner.upstream.wait_until(lambda upstream: len(upstream.connections) > len(script))
        await owner.upstream.wait_topics("a")
        owner.upstream.publish("a", "hello")
        await owner.wait_event("hello")

    async def main():
        owner = await run_script(script, until)
        assert owner.upstream.attempts == pytest.approx(attempts, abs=1e-6)
        assert [at for at, _, _ in owner.states] == pytest.approx([at for at, _, _ in states], abs=1e-6)
        assert [state for _, state, _ in owner.states] == [state for _, state, _ in states]
        for (_, _, told), (_, state, reason) in zip(owner.states, states, strict=True):
            assert (told is None) == (state == "live" or told is owner.states[0][2])
            assert reason in (told or "")
        told = owner.feed.statistics()
        assert told.undecodable == 5 * sum(isinstance(behaviour, Garbage) for behaviour in script)
        assert told.events == 40 * sum(isinstance(behaviour, Flood) for behaviour in script) + 1
        assert (told.attempts, told.failures) == (len(script) + 1, len(script))
        flood = [event["value"] for event in owner.events if event["topic"] == "flood"]
        assert flood == [*range(40)] * (len(flood) // 40)

    in_virtual_time(main)


@settings(max_examples=60, deadline=None)
@given(st.lists(behaviours, max_size=4), st.floats(0, 120))
def test_cancelled_at_any_moment_nothing_is_left(script, cut):
    """Cancelling a feed, whatever its peer is doing, ends it within the closing deadline, with every stream closed."""

    async def until(_owner):
        await trio.sleep(cut)

    in_virtual_time(partial(run_script, script, until))
