"""One simulated football match: who plays, what the clock says, what has happened, what a bookmaker would offer.

A match is driven by three sources of chance, all of them one `random.Random`: goals come as a Poisson process whose
rate each team carries, cards likewise and more seldom, and the market's *belief* about the teams wanders a little
around what is true, so that prices move between two goals. Prices follow from the belief: the goals still to come are
two Poisson numbers, which with the score give the chances of home, draw and away; a margin is put on top. So prices
drift as time runs out, jump with a goal, and never contradict the score.

The match's own time is in simulated seconds. It knows nothing of real time, of sockets, or of the other matches.
"""

import math
import random
from collections.abc import Sequence
from typing import Literal

import attrs

Phase = Literal["soon", "first", "break", "second", "ended"]
Side = Literal["home", "away"]
Happening = Literal["kick-off", "goal", "yellow", "red", "half-time", "second half", "full time"]

HALF = 45 * 60
LENGTH = 2 * HALF + 5 * 60.0  # what is played on average, with stoppage time
BREAK = 5 * 60  # fifteen minutes with nothing to see would be a long time for a demonstration
SUBSTEP = 15.0  # at most one thing happens to a team within it, so a long step is cut into these

GOALS = (1.50, 1.20)  # home and away, a match: 2.7 together, as leagues have it
YELLOWS = 1.4  # a team and match
REDS = 0.07
SHORT_HANDED, AGAINST_TEN = 0.70, 1.20  # what a red card does to the goals of its team and of the other

LEAST = 0.02  # the bookmaker's margin: every outcome is sold as if it were at least so likely
MOST_GOALS = 12  # of one team, still to come; beyond it the chances are below one in a million
LADDER = ((2, 0.01), (3, 0.02), (4, 0.05), (6, 0.1), (10, 0.2), (20, 0.5), (1000, 1.0))  # steps between prices, by size
DRIFT = 0.003  # of the market's belief in the root of a second; it forgets over `MEMORY_S`
MEMORY_S = 2400.0
QUOTED_S = (12.0, 45.0)  # a price stands for a while
SUSPENDED_S = 75.0  # after a goal or a red card the market makes up its mind


@attrs.frozen
class Odds:
    """Decimal prices of the three outcomes."""

    home: float
    draw: float
    away: float


@attrs.frozen
class News:
    """The last thing that happened, in a form that can be shown."""

    what: Happening
    minute: str
    side: Side | None = None


@attrs.frozen
class Frame:
    """A whole match, as the feed sends it: who has one frame of a match needs no earlier one.

    Attributes:
        match: the topic.
        sequence: 1, 2, 3 … within the match.
        clock: seconds played, without stoppage time: never falls, 2,700 at half-time, 5,400 at the end.
        added: seconds of stoppage time played in this half.
        odds: None while the market is suspended and when the match has ended.
    """

    match: str
    sequence: int
    competition: str
    home: str
    away: str
    phase: Phase
    minute: str
    clock: int
    added: int
    score: tuple[int, int]
    yellow: tuple[int, int]
    red: tuple[int, int]
    odds: Odds | None
    news: News | None


@attrs.define
class Match:
    """The state of one match; `advance` moves it on, `frame` shows it."""

    id: str
    competition: str
    home: str
    away: str
    strength: tuple[float, float]  # goals each team would score in a whole match
    stoppage: tuple[float, float]  # seconds added to each half
    until_kick_off: float
    phase: Phase = "soon"
    clock: float = 0.0
    added: float = 0.0
    rested: float = 0.0
    score: list[int] = attrs.field(factory=lambda: [0, 0])
    yellow: list[int] = attrs.field(factory=lambda: [0, 0])
    red: list[int] = attrs.field(factory=lambda: [0, 0])
    belief: float = 0.0  # the market's error: the log of how much too strong it thinks the home team is
    odds: Odds | None = None
    quoted: float = 0.0  # seconds until the odds are thought over
    news: News | None = None
    sequence: int = 0

    @property
    def minute(self) -> str:
        """The clock as it is shown on a board."""
        if self.phase == "soon":
            return ""
        if self.phase == "break":
            return "HT"
        if self.phase == "ended":
            return "FT"
        last = 45 if self.phase == "first" else 90
        if self.added:
            return f"{last}+{int(self.added // 60) + 1}"
        return str(min(int(self.clock // 60) + 1, last))

    @property
    def over(self) -> bool:
        """Has it ended?"""
        return self.phase == "ended"

    def advance(self, seconds: float, rng: random.Random) -> None:
        """Play on for so many simulated seconds."""
        while seconds > 0 and not self.over:
            step = min(seconds, SUBSTEP)
            seconds -= step
            self._run_clock(step)
            self.belief += rng.gauss(0.0, DRIFT) * math.sqrt(step) - self.belief * step / MEMORY_S
            if self.phase in ("first", "second"):
                self._play(step, rng)
            self.quoted -= step
            if self.quoted <= 0:
                self.odds, self.quoted = self._quote(), rng.uniform(*QUOTED_S)

    def frame(self) -> Frame:
        """Show the match; each frame has the next number."""
        self.sequence += 1
        return Frame(
            match=self.id,
            sequence=self.sequence,
            competition=self.competition,
            home=self.home,
            away=self.away,
            phase=self.phase,
            minute=self.minute,
            clock=int(self.clock),
            added=int(self.added),
            score=(self.score[0], self.score[1]),
            yellow=(self.yellow[0], self.yellow[1]),
            red=(self.red[0], self.red[1]),
            odds=self.odds,
            news=self.news,
        )

    def _run_clock(self, step: float) -> None:
        match self.phase:
            case "soon":
                self.until_kick_off -= step
                if self.until_kick_off <= 0:
                    self._enter("first", "kick-off")
            case "break":
                self.rested += step
                if self.rested >= BREAK:
                    self._enter("second", "second half")
            case _:
                half = 0 if self.phase == "first" else 1
                whistle = HALF * (half + 1)
                over = self.clock + step - whistle
                self.clock = min(self.clock + step, float(whistle))
                self.added += max(0.0, over)
                if self.added >= self.stoppage[half]:
                    self._enter(*(("break", "half-time") if half == 0 else ("ended", "full time")))

    def _enter(self, phase: Phase, happening: Happening) -> None:
        self.phase, self.added = phase, 0.0
        self.quoted = 0.0  # every whistle is a reason to think again
        self.news = News(happening, self.minute)

    def _play(self, step: float, rng: random.Random) -> None:
        share = step / LENGTH
        rates = self._rates()
        for side in (0, 1):
            if rng.random() < rates[side] * share:
                self._happens("goal", self.score, side)
            if rng.random() < YELLOWS * share:
                self._happens("yellow", self.yellow, side)
            if rng.random() < REDS * share:
                self._happens("red", self.red, side)

    def _happens(self, what: Happening, count: list[int], side: int) -> None:
        count[side] += 1
        self.news = News(what, self.minute, "away" if side else "home")
        if what != "yellow":
            self.odds, self.quoted = None, SUSPENDED_S

    def _quote(self) -> Odds | None:
        if self.over:
            return None
        left = max(LENGTH - self.clock - self.added, 60.0) / LENGTH  # a last minute is always expected
        home, away = self._rates()
        return price(home * left * math.exp(self.belief), away * left * math.exp(-self.belief), self.score)

    def _rates(self) -> tuple[float, float]:
        """Goals a whole match, with the red cards so far."""
        reds = self.red
        return (
            self.strength[0] * SHORT_HANDED ** reds[0] * AGAINST_TEN ** reds[1],
            self.strength[1] * SHORT_HANDED ** reds[1] * AGAINST_TEN ** reds[0],
        )


def poisson(rate: float) -> list[float]:
    """The chances of 0, 1, 2 … goals."""
    chances = [math.exp(-rate)]
    for goals in range(1, MOST_GOALS + 1):
        chances.append(chances[-1] * rate / goals)
    return chances


def price(home_rate: float, away_rate: float, score: Sequence[int]) -> Odds:
    """Prices from the goals that each team is expected still to score, and the score."""
    home, draw = 0.0, 0.0
    away_chances = poisson(away_rate)
    for more, chance in enumerate(poisson(home_rate)):
        lead = score[0] + more - score[1]
        if lead >= 0:
            home += chance * sum(away_chances[:lead])
            draw += chance * (away_chances[lead] if lead <= MOST_GOALS else 0.0)
    return Odds(*(on_ladder(1 / with_margin(chance)) for chance in (home, draw, max(0.0, 1 - home - draw))))


def with_margin(chance: float) -> float:
    """Put the margin on a chance: three that add up to 1 then add up to 1.04, and none is offered beyond 50."""
    return LEAST + (1 - LEAST) * chance


def on_ladder(odds: float) -> float:
    """The nearest price that is offered, never below 1.01."""
    step = next(step for limit, step in LADDER if odds < limit)
    return max(1.01, round(round(odds / step) * step, 2))
