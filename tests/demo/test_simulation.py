"""The simulated board: plausible, and the same for the same seed."""

from collections import defaultdict
from itertools import pairwise

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_swarm.demo.football import Frame, Odds, on_ladder, price, with_margin
from trio_swarm.demo.simulation import COMPETITIONS, Simulation

PHASES = ["soon", "first", "break", "second", "ended"]

seeds = st.integers(0, 2**32)
steps = st.lists(st.floats(0.01, 10.0), min_size=1, max_size=40)


def play(seed: int, dts: list[float], pitches: int = 4) -> list[Frame]:
    simulation = Simulation(seed, pitches=pitches)
    frames = simulation.board()
    for dt in dts:
        frames += simulation.step(dt)
    return frames


def by_match(frames: list[Frame]) -> dict[str, list[Frame]]:
    matches = defaultdict(list)
    for frame in frames:
        matches[frame.match].append(frame)
    return matches


def overround(odds: Odds) -> float:
    return 1 / odds.home + 1 / odds.draw + 1 / odds.away


@given(seeds, steps)
@settings(max_examples=100, deadline=None)
def test_nothing_that_counts_up_ever_falls(seed, dts):
    """Scores, cards, clock, phase and sequence of a match never go back, and the sequence counts 1, 2, 3 …"""
    for frames in by_match(play(seed, dts)).values():
        assert [frame.sequence for frame in frames] == list(range(1, len(frames) + 1))
        for before, after in pairwise(frames):
            for name in ("score", "yellow", "red"):
                old, new = getattr(before, name), getattr(after, name)
                assert old[0] <= new[0]
                assert old[1] <= new[1]
            assert PHASES.index(before.phase) <= PHASES.index(after.phase)
            assert before.clock <= after.clock <= 90 * 60
            if before.phase == after.phase:
                assert before.added <= after.added


@given(seeds, steps)
@settings(max_examples=100, deadline=None)
def test_odds_are_prices(seed, dts):
    """Every price is above 1, and the three of a match hold a bookmaker's margin."""
    for frame in play(seed, dts):
        if frame.odds is not None:
            assert min(attrs.astuple(frame.odds)) >= 1.01
            assert 1.01 < overround(frame.odds) < 1.07


@given(
    st.floats(0.001, 6.0),
    st.floats(0.001, 6.0),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_prices_follow_the_score(home_rate, away_rate, score):
    """A goal never makes its own team dearer or the other cheaper, whatever the teams and the score."""
    before = price(home_rate, away_rate, score)
    after = price(home_rate, away_rate, (score[0] + 1, score[1]))
    assert after.home <= before.home
    assert after.away >= before.away
    assert 1.01 < overround(before) < 1.07


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_margin_is_the_margin(one, share):
    """Three chances that add up to 1 add up to 1.04 with the margin, whatever they are, and none passes 1."""
    chances = [one, (1 - one) * share, (1 - one) * (1 - share)]
    sold = [with_margin(chance) for chance in chances]
    assert sum(sold) == pytest.approx(1.04)
    assert max(sold) <= 1


@given(st.floats(1.0, 999.0))
def test_the_ladder(odds):
    """A price on the ladder is near what was meant, never below 1.01, and stays where it is."""
    shown = on_ladder(odds)
    assert shown >= 1.01
    assert abs(shown - odds) <= max(0.011, 0.03 * odds)
    assert on_ladder(shown) == shown


@given(seeds, steps)
@settings(max_examples=30, deadline=None)
def test_the_same_seed_is_the_same_board(seed, dts):
    """Two boards of one seed and the same steps show the same frames."""
    assert play(seed, dts) == play(seed, dts)


def test_other_seeds_are_other_boards():
    """Two seeds differ from the first frame on."""
    assert play(1, []) != play(2, [])


def test_an_afternoon_is_plausible():
    """A hundred matches have about 2.7 goals each and few cards; no team plays twice at once."""
    simulation = Simulation(2024)
    ended: list[Frame] = []
    for _ in range(2 * 60 * 60):
        ended += [frame for frame in simulation.step(0.25) if frame.phase == "ended"]
        busy = [team for frame in simulation.board() for team in (frame.home, frame.away)]
        assert len(busy) == len(set(busy)) <= 24
    assert len(ended) > 80
    assert 2.2 < sum(sum(frame.score) for frame in ended) / len(ended) < 3.2
    assert 2.5 < sum(sum(frame.yellow) for frame in ended) / len(ended) < 4.5
    assert 0.05 < sum(sum(frame.red) for frame in ended) / len(ended) < 0.25
    assert {frame.competition for frame in ended} == set(COMPETITIONS)
    assert all(frame.minute == "FT" and frame.odds is None and frame.clock == 5400 for frame in ended)


def test_prices_move_between_goals():
    """A board at rest for a minute of real time still has dozens of price changes."""
    changes = 0
    last: dict[str, Odds | None] = {}
    for frame in play(3, [0.25] * 240, pitches=12):
        changes += last.get(frame.match, frame.odds) != frame.odds
        last[frame.match] = frame.odds
    assert changes > 100


def test_a_goal_suspends_the_market():
    """With a goal the prices go, and they come back."""
    for frames in by_match(play(5, [0.25] * 800, pitches=12)).values():
        for before, after in pairwise(frames):
            if after.score != before.score:
                assert after.odds is None
    assert any(frame.odds for frame in frames)


def test_too_many_pitches():
    """There are teams for fifteen matches at a time, and a board says so."""
    assert len(Simulation(1, pitches=15).board()) == 15
    with pytest.raises(ValueError, match="not for 16"):
        Simulation(1, pitches=16)
