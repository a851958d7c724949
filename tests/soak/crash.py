"""A service is killed, again and again, under load: whatever it has let out is there when it is back.

    python tests/soak/crash.py --kills 100 [--seed 7] [--objects 50]

A real process (`trio-swarm serve`) with a store in a file gets `kill -9`: at a random moment, at the moment of an
answer or of an event, while it starts, as soon as it is ready, or while it drains after a SIGTERM. Between death and
next start the tables are read as they lie there (`stored_ledgers.py`): no turn may stand by half. The clients
(`crash_clients.py`) go on in the next life and compare it with their own records. Now and then the clock of the next
life is set back by some seconds. At the end no more turns come, and all that is under way must end within `REST_S`.

Limits and journals are the defaults; only alarms that were missed or that raised come again sooner, as lives are short.

The last line is a JSON object with what was done. Exit code: 0 all held, 1 not, 2 the command line is wrong.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import attrs
import trio
from crash_clients import Life, make_clients
from stored_ledgers import what_is_wrong

from trio_swarm.journal.event import START, EventId

COMMAND = Path(sys.executable).with_name("trio-swarm")
CONFIG = "[alarms]\nspread_s = 0.5\nretry_initial_s = 0.2\n"
CHANNELS = 5  # one of so many objects; the others are ledgers
FIRST_RATE = 0.7  # until each topic has an event: slow enough for reminders that no next turn has replaced
RATE = 6.0  # turns a second of each client; 50 objects take less than one core so
START_S = 60.0  # until it must be ready, on a machine with other things to do
REST_S = 30.0  # until all that is under way is done
SET_BACK_MS = (3_000, 8_000)  # more than a start takes, less than the clock's reservation: ids may not follow
UNDER_LOAD = 30  # answers and events in a life: its clients are back
LIFE_S = 0.7  # from then on, at most
WAYS = {"load": 4, "answer": 4, "event": 2, "start": 8, "ready": 2, "drain": 3}
MOST_WRONG = 20  # kept


@attrs.define
class Crash:
    """One run and what came of it."""

    kills: int
    seed: int
    objects: int = 50
    rate: float = FIRST_RATE
    folder: Path = None
    faults: list = attrs.Factory(list)
    killed: Counter = attrs.Factory(Counter)
    ready_s: list = attrs.Factory(list)  # from each start until ready
    settled_s: float = 0.0  # from the last turn from outside until all alarms had rung
    resting: bool = False
    highest: EventId = START  # that anybody has seen
    clients: tuple = ()
    rng: random.Random = None
    _life: Life = None
    _news: trio.Event = attrs.Factory(trio.Event)
    _waited_in_vain: bool = False
    _heard: int = 0  # in this life
    _armed: str = ""  # what the next kill waits for
    _inspected: int = 0
    _mark_ms: int = 0
    _said: bytearray = attrs.Factory(bytearray)

    async def run(self):
        """All of it."""
        self.rng = random.Random(self.seed)
        (self.folder / "service.toml").write_text(CONFIG)
        channels = max(1, self.objects // CHANNELS)
        callers, publishers, readers = self.clients = make_clients(self, self.objects - channels, channels)
        async with trio.open_nursery() as nursery:
            await self._start(nursery)
            for client in (*callers, *publishers):
                nursery.start_soon(client.run)
            # A reader that begins before the first durable event has nothing to resume by.
            await self.wait("a first turn of all", lambda: all(client.answered for client in (*callers, *publishers)))
            for reader in readers:
                nursery.start_soon(reader.run)
            # Of a topic without an event nobody knows that it is durable: its readers are told a gap.
            ledgers = readers[: len(callers)]
            await self.wait("a first event of each topic", lambda: all(reader.has_begun() for reader in ledgers))
            self.rate = RATE
            for way in random.Random(self.seed).choices(list(WAYS), WAYS.values(), k=self.kills):
                await self._kill(nursery, way)
            await self._ensure(nursery)
            await self._finish(*self.clients)
            await self._end(nursery, self._life, signal.SIGTERM)
            nursery.cancel_scope.cancel()

    # What clients ask and tell

    async def next_life(self, after):
        """The life after that one, when it is ready."""
        while self._life is None or self._life is after or self._life.ended.is_set():
            await self._news.wait()
        return self._life

    @property
    def lives(self):
        """How many there were."""
        return len(self.ready_s)

    def heard(self, what):
        """A client was told something: the moment to kill at, perhaps."""
        self._heard += 1
        if self._armed == what:
            self._armed = ""
            self._life.process.kill()

    def saw(self, id_):
        """A reader has an event."""
        self.highest = max(self.highest, id_)
        self.heard("event")

    def wrong(self, what):
        """Something is not as promised."""
        if len(self.faults) < MOST_WRONG:
            self.faults.append(what)

    # Lives

    async def _spawn(self):
        clock = self.rng.choice((0, self.rng.randrange(*SET_BACK_MS))) if sum(self.killed.values()) else 0
        config, store = self.folder / "service.toml", self.folder / "swarm.db"
        command = [COMMAND, "serve", "--bind", "127.0.0.1:0", "--control", "off", "--config", config, "--store", store]
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1] / "storage"), os.environ.get("PYTHONPATH")]))
        return await trio.lowlevel.open_process(
            [*map(str, command), "--objects", "ledgers"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, "CRASH_CLOCK_MS": str(clock)},
        )

    async def _start(self, nursery):
        """Begin a life and tell the clients."""
        began = trio.current_time()
        life = Life(await self._spawn())
        text = b""
        with trio.fail_after(START_S):
            while (found := re.search(rb"http://127.0.0.1:([0-9]+)", text)) is None:
                received = await life.process.stdout.receive_some(65536)
                assert received, f"it ended before it was ready: {text.decode()}"
                text += received
        self.ready_s.append(trio.current_time() - began)
        life.port, life.floor, life.mark_ms = int(found[1]), self.highest, self._mark_ms
        nursery.start_soon(self._listen, life.process.stdout)
        self._life, self._heard = life, 0
        news, self._news = self._news, trio.Event()
        news.set()
        return life

    async def _listen(self, stream):
        async for said in stream:
            self._said += said
            del self._said[:-100_000]

    async def _end(self, nursery, life, how):
        """End a life, and look at what it left."""
        if life.process.poll() is None:
            life.process.send_signal(how)
        await life.process.wait()
        life.ended.set()
        copy = self.folder / f"copy-{len(self.killed)}-{self._inspected}"
        self._inspected += 1
        copy.mkdir()
        for name in ("swarm.db", "swarm.db-wal"):
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, copy / name)
        with closing(sqlite3.connect(copy / "swarm.db")) as connection:
            [[self._mark_ms]] = connection.execute("SELECT value FROM meta WHERE name = 'clock'").fetchall() or [[0]]
        if how is signal.SIGKILL:
            nursery.start_soon(self._inspect, copy)
        else:
            await self._inspect(copy)

    async def _inspect(self, copy):
        wrong = await trio.to_thread.run_sync(_look_into, copy / "swarm.db")
        if wrong is None:
            shutil.rmtree(copy)
        else:
            self.wrong(f"in the store after {dict(self.killed)}: {wrong}")

    async def _ensure(self, nursery):
        """A life that is ready."""
        if self._life.ended.is_set():
            await self._start(nursery)

    async def _kill(self, nursery, way):
        """One kill. Where it is to hit a life that is ready, there is one first."""
        rng = self.rng
        if way == "start" and self._life.ended.is_set():
            self.killed[way] += 1
            process = await self._spawn()
            await trio.sleep(rng.uniform(0, 1.2 * min(self.ready_s)))
            await self._end(nursery, Life(process), signal.SIGKILL)
            return
        way = "load" if way == "start" else way
        await self._ensure(nursery)
        self.killed[way] += 1
        life = self._life
        if way != "ready":
            await self.wait("load", lambda: self._heard >= UNDER_LOAD)
        if way == "ready":
            await trio.sleep(rng.uniform(0, 0.05))
        elif way == "load":
            await trio.sleep(rng.uniform(0, LIFE_S))
        elif way == "drain":
            await trio.sleep(rng.uniform(0, LIFE_S))
            life.process.terminate()
            await trio.sleep(rng.uniform(0, 0.3))
        else:
            await trio.sleep(rng.uniform(0, LIFE_S))
            self._armed = way
            with trio.move_on_after(5):
                await life.process.wait()
            self._armed = ""
        await self._end(nursery, life, signal.SIGKILL)

    # The end

    async def wait(self, what, condition):
        """Look until it is so: what is waited for is in another process."""
        seconds = 1.0 if self._waited_in_vain else REST_S  # something is lost already: not that long for each thing
        with trio.move_on_after(seconds):
            while True:
                if condition():
                    return
                await trio.sleep(0.05)
        self._waited_in_vain = True
        self.wrong(f"{what}: not within {seconds} s")

    async def _finish(self, callers, publishers, readers):
        """No more turns from outside; everything that is under way ends, and is compared."""
        self.resting = True
        await self.wait("each client is done", lambda: all(client.done for client in (*callers, *publishers)))
        began = trio.current_time()
        ledgers, channels = readers[: len(callers)], readers[len(callers) :]
        pairs = list(zip(callers, ledgers, strict=True))
        await self.wait("all alarms ring", lambda: all(reader.has_rung(caller.answered) for caller, reader in pairs))
        self.settled_s = trio.current_time() - began
        for caller, reader in pairs:
            await caller.compare(self._life, reader)
        for reader in channels:
            said = [p for p in publishers if p.stream == reader.stream]
            await self.wait(f"{reader.name} has all", partial(reader.has_all, said))
            reader.compare(said)

    def report(self):
        """What was done."""
        callers, publishers, readers = self.clients
        alarms = sum(len(reader.numbers(name)) for reader in readers for name in ("rung", "reminded", "tick"))
        return {
            "seed": self.seed,
            "kills": sum(self.killed.values()),
            "ways": dict(self.killed),
            "turns": sum(caller.answered + caller.jots_answered for caller in callers),
            "turns_kept_unanswered": sum(caller.unanswered_but_kept for caller in callers),
            "published": sum(len(publisher.answered) for publisher in publishers),
            "repeats": sum(publisher.repeated for publisher in publishers),
            "repeats_from_before": sum(publisher.from_before for publisher in publishers),
            "events": sum(len(reader.seen.events) for reader in readers),
            "alarms": alarms,
            "stores_inspected": self._inspected,
            "longest_ready_s": round(max(self.ready_s), 2),
            "alarms_settled_s": round(self.settled_s, 2),
            "wrong": self.faults,
        }


def _look_into(path):
    with closing(sqlite3.connect(path)) as connection:
        return what_is_wrong(connection)


def _arguments():
    parser = argparse.ArgumentParser(description="A service is killed under load; what it has let out must be there.")
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, default=None, help="drawn if not given; it is in the report")
    parser.add_argument("--objects", type=int, default=50, help="ledgers, and a channel for every four (50)")
    chosen = parser.parse_args()
    if chosen.kills < 1 or not 2 <= chosen.objects <= 1_000:
        parser.error("--kills is at least 1, --objects 2 to 1000")
    return chosen


def main():
    """Run, and report."""
    chosen = _arguments()
    seed = time.time_ns() % 1_000_000 if chosen.seed is None else chosen.seed
    with tempfile.TemporaryDirectory() as folder:
        crash = Crash(chosen.kills, seed, chosen.objects, folder=Path(folder))
        trio.run(crash.run)
    print(json.dumps(crash.report()))
    sys.exit(1 if crash.faults else 0)


if __name__ == "__main__":
    main()
