"""A soak: connections come and go, at 300 a second, for as long as one likes; what the service holds must not grow.

    python tests/soak/churn.py --minutes 60 --plot churn.png

The service (`tests/edge/watched_service.py`) runs in a process of its own and is asked each second what it holds.
Meanwhile two witnesses must get every event once and in order, and what each visit gets is checked too (`visits.py`).

Whatever the service may keep for a while, it keeps for seconds here: journals for 1 s (swept each 10 s), at most 200
of them, objects for 0.3 s, repeated messages for 5 s; the largest table of a fixed size, 4,096 prefixes of events,
is full after 50 s of this churn. So everything that may fill has filled within the first minute. Then three things are
judged: after that minute all series must be flat (`flatness.py`); in a pause after it and in one at the end, all that
can be counted must be what it was before the churn; and from the one pause to the other the heap must not have grown,
which is exact to some hundred objects.

Exit code: 0 flat, 1 not, 2 the command line is wrong.
"""

import argparse
import importlib.util
import json
import math
import sys
import time
from contextlib import suppress
from pathlib import Path

import attrs
import trio

sys.path.append(str(Path(__file__).parents[1] / "edge"))

from abrupt import Short
from flatness import FEWEST, HIGH_WATER, WINDOW_S, judge
from visits import visit
from watched_process import SETTLE_S, Witnesses, difference, watched_service
from watched_service import PLANTS

FILLING_S = 60
AT_ONCE = 200  # visits: what the service is too slow for waits to be accepted, and is not to wait for long
FAULTS = 20  # kept
TICK_S = 0.01
SPARE_OBJECTS = 300  # between two pauses; measured: under 10, beside busy neighbours up to 155; a leak has one a visit
SPARE_BLOCKS = 10_000  # the table of prefixes may still fill by a thousand or two, six blocks each
JUDGED = ("tasks", "descriptors", "connections", "clients", "objects", "journals", "gc_objects", "blocks", "rss")
SHOWN = ("second", "visits", "published", *JUDGED, "subscriptions", "full_sockets")


@attrs.define
class Soak:
    """One run and what came of it."""

    rate: float
    seed: int
    report: object = print
    settle_s: float = SETTLE_S
    samples: list = attrs.Factory(list)
    faults: list = attrs.Factory(list)
    visits: int = 0
    left: str = ""  # what was not as before when the churn had ended, a line each
    growth: dict = attrs.Factory(dict)  # of memory between the last two pauses
    _begun: int = 0
    _now: int = 0

    async def run(self, *spans, **options):
        """Churn for so many seconds, pause until the service is as it was, and again."""
        pauses = []
        async with watched_service(**options) as service, trio.open_nursery() as nursery:
            witnesses = Witnesses(service)
            await nursery.start(witnesses.run)
            base = await service.settled(witnesses)
            for seconds in spans:
                over = trio.Event()
                async with trio.open_nursery() as sampling:
                    sampling.start_soon(self._sample, service, witnesses, over)
                    await self._churn((service.host, service.port), seconds, over)
                pauses.append(await service.settled(witnesses, base, self.settle_s))
                self.left = self.left or difference(base, pauses[-1])
            witnesses.finish()
        self.faults += witnesses.faults
        earlier, last = ([base, *pauses])[-2:]
        self.growth = {name: last[name] - earlier[name] for name in ("gc_objects", "blocks", "rss")}

    async def _churn(self, address, seconds, over):
        """Begin visits in time; what is under way at the end is waited for."""
        at_most = math.ceil(3 * TICK_S * self.rate)  # what is late is not made up for all at once, nor ever
        start = trio.current_time()
        room = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            while (passed := trio.current_time() - start) < seconds:
                due = math.ceil(passed * self.rate) - self._now
                for _ in range(min(due, at_most, int(room.available_tokens))):
                    await room.acquire_on_behalf_of(self._begun)
                    nursery.start_soon(self._visit, address, self._begun, room)
                    self._begun += 1
                self._now = math.ceil(passed * self.rate)
                await trio.sleep(TICK_S)
            over.set()
        self._now = 0

    async def _visit(self, address, n, room):
        try:
            await visit(address, self.seed, n)
        except (OSError, Short, AssertionError, trio.TooSlowError, trio.BrokenResourceError) as error:
            if len(self.faults) < FAULTS:
                self.faults.append((n, repr(error)))
        finally:
            self.visits += 1
            room.release_on_behalf_of(n)

    async def _sample(self, service, witnesses, over):
        start = trio.current_time() - len(self.samples)
        while True:
            with trio.move_on_at(start + len(self.samples) + 1):  # no cancelled census: its answer would come later
                await over.wait()
                return
            told = await service.census()
            sample = {name: _total(told[name]) for name in (*JUDGED, "subscriptions", "full_sockets")}
            sample |= {"second": len(self.samples) + 1, "visits": self.visits, "published": witnesses.published}
            self.samples.append(sample)
            self.report(sample)

    @property
    def heap_grew(self):
        """Whether the heap holds more than in the pause before, after a collection."""
        return self.growth.get("gc_objects", 0) > SPARE_OBJECTS or self.growth.get("blocks", 0) > SPARE_BLOCKS

    def verdicts(self):
        """Each series after the first minute; nothing where the run was too short for that."""
        rest = self.samples[FILLING_S:]
        if len(rest) < FEWEST * WINDOW_S:
            return {}
        return {name: judge([sample[name] for sample in rest], HIGH_WATER if name == "rss" else 0.0) for name in JUDGED}


def spans(minutes):
    """The first minute and the rest, in seconds; two halves where there is no more than two minutes."""
    first = min(FILLING_S, minutes * 30)
    return first, minutes * 60 - first


def _total(told):
    return sum(told.values()) if isinstance(told, dict) else told


class Table:
    """Prints samples under a head that comes again."""

    def __init__(self):
        self.lines = 0

    def __call__(self, sample):
        if self.lines % 30 == 0:
            print("".join(f"{name:>13}" for name in SHOWN))
        self.lines += 1
        print("".join(f"{sample[name]:13,}" for name in SHOWN), flush=True)


def _arguments():
    parser = argparse.ArgumentParser(description="Connections come and go; what the service holds must not grow.")
    parser.add_argument("--minutes", type=float, required=True, help="at least 3 for the slopes to be judged")
    parser.add_argument("--rate", type=float, default=300.0, help="connections a second (300)")
    parser.add_argument(
        "--seed", type=int, default=None, help="of what the visitors do; drawn and printed if not given"
    )
    parser.add_argument("--plot", metavar="FILE.png", help="draw a picture; needs matplotlib")
    parser.add_argument("--json", action="store_true", help="print samples as lines of JSON")
    parser.add_argument("--asgi", action="store_true", help="write through ASGI, as on a foreign host")
    parser.add_argument("--plant", action="append", choices=PLANTS, help="make the service leak this")
    chosen = parser.parse_args()
    if chosen.minutes <= 0 or chosen.rate <= 0:
        parser.error("--minutes and --rate are more than 0")
    if chosen.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install matplotlib")
    return chosen


def main():
    """Run, print, judge, draw."""
    chosen = _arguments()
    seed = time.time_ns() % 1_000_000 if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    report = (lambda sample: print(json.dumps(sample), flush=True)) if chosen.json else Table()
    soak = Soak(chosen.rate, seed, report)
    with suppress(KeyboardInterrupt):
        trio.run(lambda: soak.run(*spans(chosen.minutes), foreign=chosen.asgi, plant=chosen.plant or []))
    verdicts = soak.verdicts()
    print(f"\n{soak.visits} visits, {soak.visits / max(1, len(soak.samples)):.0f} a second; after the first minute:")
    for name, verdict in verdicts.items():
        print(f"{name:>13} {verdict}")
    if not verdicts:
        print("too short to judge slopes: 3 minutes are the least")
    print(f"heap from the first pause to the last: {soak.growth}")
    print(f"left behind: {soak.left or 'nothing'}\nfaults: {soak.faults or 'none'}")
    if chosen.plot:
        from picture import draw

        draw(soak.samples, verdicts, f"{soak.visits} visits, seed {seed}", chosen.plot)
    bad = soak.left or soak.faults or soak.heap_grew or any(verdict.grows for verdict in verdicts.values())
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
