"""Is a series flat? Decided so that noise is no growth and a slow leak is.

Samples are taken every second; the medians of windows of 10 s are judged, which neighbours influence less. Their slope
is Theil and Sen's (the median of the slopes of all pairs: outliers do not move it), and its interval comes from
Kendall's variance: three standard deviations each way, 99.7 %.

A series *grows* when the lower end of the interval, over an hour, is more than 5 % of its level: when we can be sure
that it grows by more than that. What is not proved is told too: the upper end is what may still be hidden.

Resident memory alone has an allowance: what is certain of its growth has to be more than 10 % over the time that is
judged. It is a high-water mark: it rises with each burst that is larger than those before, and the allocators give
little of it back.
"""

import math
import statistics
from itertools import combinations

import attrs

WINDOW_S = 10
DEVIATIONS = 3.0
MOST_AN_HOUR = 0.05  # of the level
HIGH_WATER = 0.1  # resident memory's allowance
FEWEST = 10  # windows
HOUR_S = 3600.0


@attrs.frozen
class Verdict:
    """One series: its level, and its growth in an hour as a share of the level."""

    level: float
    slope: float
    least: float
    most: float
    hours: float  # judged
    allowance: float  # of growth over this time

    @property
    def grows(self):
        return self.least > MOST_AN_HOUR and self.least * self.hours > self.allowance

    def __str__(self):
        shares = f"{self.slope:+8.1%} an hour ({self.least:+.1%} to {self.most:+.1%})"
        return f"{self.level:14,.0f} {shares:45}{'GROWS' if self.grows else 'flat'}"


def judge(samples, allowance=0.0):
    """Judge one number a second.

    Raises:
        ValueError: there are too few.
    """
    whole = len(samples) - len(samples) % WINDOW_S
    windows = [statistics.median(samples[at : at + WINDOW_S]) for at in range(0, whole, WINDOW_S)]
    count = len(windows)
    if count < FEWEST:
        raise ValueError(f"{len(samples)} samples are too few: {FEWEST * WINDOW_S} seconds are the least")
    slopes = sorted((windows[b] - windows[a]) / (b - a) for a, b in combinations(range(count), 2))
    level = statistics.median(windows)
    spread = DEVIATIONS * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    first = max(0, math.floor((len(slopes) - spread) / 2))
    share = HOUR_S / WINDOW_S / max(level, 1.0)
    least, most = slopes[first], slopes[-1 - first]
    hours = count * WINDOW_S / HOUR_S
    return Verdict(level, statistics.median(slopes) * share, least * share, most * share, hours, allowance)
