"""The feed's own numbers: what was missed is counted, what came twice is dropped, and nothing waits for a gap.

A topic's numbers rise by one. A number at or shortly below the last one is a repeat; one shortly above what was
expected tells of frames that were lost before us; one that is far off, either way, means that the feed numbers anew.
After a reconnect nothing is known: a feed may begin again at 1. (source: R29, sequence tracking)
"""

import enum

import attrs

from trio_swarm.settings import FEED_TOPICS

NEAR = 100  # R29: a gap larger than this is no gap but another numbering


class Verdict(enum.Enum):
    """What one number says."""

    NEXT = "next"
    GAP = "gap"
    REPEAT = "repeat"
    RESTART = "restart"


@attrs.define
class Sequences:
    """The last number of each topic, and what they told. Pure."""

    missing: int = 0  # frames that the numbers say were never sent to us
    repeats: int = 0
    restarts: int = 0
    _last: dict[str, int] = attrs.field(factory=dict)

    def take(self, topic: str, number: int) -> Verdict:
        """Judge a topic's next number."""
        last = self._last.get(topic)
        if last is None:
            while len(self._last) >= FEED_TOPICS:
                del self._last[next(iter(self._last))]  # the topic known longest; it only loses its memory
            self._last[topic] = number
            return Verdict.NEXT
        step = number - last
        if -NEAR < step <= 0:
            self.repeats += 1
            return Verdict.REPEAT
        self._last[topic] = number
        if step == 1:
            return Verdict.NEXT
        if 1 < step <= NEAR + 1:
            self.missing += step - 1
            return Verdict.GAP
        self.restarts += 1
        return Verdict.RESTART

    def reconnected(self) -> None:
        """Forget the numbers: the next ones are the first."""
        self._last.clear()
