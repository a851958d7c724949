"""A board of live football matches, simulated: pure, and the same for the same seed.

Time is given, never read: `step(dt)` moves every match on by `dt` real seconds, `pace` times as fast, and answers the
frames of those that look different now. A match that ended is followed by another on the same pitch a little later,
so the board always moves. Every frame is a whole match (`football.Frame`): a reader may miss any number of them and
is right again with the next one, which is what a reader behind a lag policy of `skip` needs.
"""

import random

import attrs

from trio_swarm.demo.football import GOALS, Frame, Match

PACE = 30.0  # a match of ninety minutes in three: the clock moves every two seconds
PITCHES = 12
SILENCE_S = 4.0  # a match that did not change is shown again after so many real seconds
PAUSE_S = 6.0  # real seconds between full time and the next match's first frame

COMPETITIONS = {
    "Harbour Premiership": (
        *("Ashford Rovers", "Brinmouth", "Calder Vale", "Dunmere City", "Eastwick Athletic"),
        *("Fenbrook", "Greywater United", "Holloway Park", "Inverlock", "Kingsferry Town"),
    ),
    "Liga del Valle": (
        *("Aldamar", "Bellacosta", "Club Cordal", "Deportivo Miraval", "Espina Real"),
        *("Fortuna Sur", "Laguna Blanca", "Montecruz", "Puerto Sereno", "Racing Olmedo"),
    ),
    "Nordliga": (
        *("Askvik", "Bergholm IF", "Dalsund", "Elvestad", "Fjordby 09"),
        *("Grenland", "Havnar", "Isfors BK", "Kaldnes", "Lysefjell"),
    ),
}


@attrs.define
class _Pitch:
    """A place on the board: its match, or the pause before the next one."""

    competition: str
    match: Match
    frame: Frame | None = None  # as last shown
    look: tuple[object, ...] = ()  # what of it a reader sees
    quiet_s: float = 0.0
    pause_s: float = 0.0

    def show(self) -> Frame:
        self.look, self.quiet_s = _look(self.match), 0.0
        self.frame = self.match.frame()
        return self.frame


class Simulation:
    """The board. `Simulation(seed)` and the same steps give the same frames."""

    def __init__(self, seed: int, *, pitches: int = PITCHES, pace: float = PACE) -> None:
        """Set up the board with matches that are already under way.

        Args:
            seed: what all chance comes from.
            pitches: how many matches stand on the board at a time; 15 at most, as no team plays twice at once.
            pace: how much faster than life.
        """
        if not 0 < pitches <= sum(map(len, COMPETITIONS.values())) // 2:
            raise ValueError(f"there are teams for 1 to 15 matches, not for {pitches}")
        self._rng = random.Random(seed)  # noqa: S311 - a game, not a secret
        self._pace = pace
        self._numbers: dict[str, int] = {}  # bounded: one entry a pair of teams of one competition
        self._pitches: list[_Pitch] = []
        competitions = list(COMPETITIONS)
        for index in range(pitches):
            pitch = self._open(competitions[index % len(competitions)])
            # Spread over a whole match and its break, so that something is always about to begin or to end.
            pitch.match.advance(100 * 60 * (index + self._rng.random()) / pitches, self._rng)
            if pitch.match.over:
                pitch.match = self._kick_off(pitch.competition)
            pitch.show()

    def board(self) -> list[Frame]:
        """Every match as it was last shown, for a reader that has just come."""
        return [pitch.frame for pitch in self._pitches if pitch.frame is not None and not pitch.pause_s]

    def step(self, dt: float) -> list[Frame]:
        """Move on by `dt` real seconds; the frames of the matches that changed."""
        frames = []
        for pitch in self._pitches:
            if pitch.pause_s:
                pitch.pause_s = max(0.0, pitch.pause_s - dt)
                if pitch.pause_s:
                    continue
                pitch.match = self._kick_off(pitch.competition)
            else:
                pitch.match.advance(dt * self._pace, self._rng)
            pitch.quiet_s += dt
            if pitch.quiet_s >= SILENCE_S or _look(pitch.match) != pitch.look:
                frames.append(pitch.show())
            if pitch.match.over:
                pitch.pause_s = PAUSE_S
        return frames

    def _open(self, competition: str) -> _Pitch:
        pitch = _Pitch(competition, self._kick_off(competition))
        self._pitches.append(pitch)
        return pitch

    def _kick_off(self, competition: str) -> Match:
        """Two teams of the competition that are not playing."""
        busy = {team for pitch in self._pitches if not pitch.pause_s for team in (pitch.match.home, pitch.match.away)}
        home, away = self._rng.sample([team for team in COMPETITIONS[competition] if team not in busy], 2)
        pair = "-".join(team.lower().replace(" ", "_") for team in (home, away))
        number = self._numbers[pair] = self._numbers.get(pair, 0) + 1
        edge = self._rng.gauss(0.0, 0.35)  # how much better the home team is
        return Match(
            id=f"{pair}-{number}",
            competition=competition,
            home=home,
            away=away,
            strength=(GOALS[0] * 2.0**edge, GOALS[1] * 2.0**-edge),
            stoppage=(self._rng.uniform(45, 180), self._rng.uniform(120, 330)),
            until_kick_off=self._rng.uniform(60, 300),
        )


def _look(match: Match) -> tuple[object, ...]:
    """What a reader would see; while it stays the same there is nothing to send."""
    return (match.id, match.phase, match.minute, *match.score, *match.yellow, *match.red, match.odds)
