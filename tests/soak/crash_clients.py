"""The clients of `crash.py`: each keeps its own record of what it was told, and compares when the service is back.

A client works through the *lives* of the service, one after the other. What it was not answered in one life, it asks
or repeats in the next; what it was answered, or has seen, must be there.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

import attrs
import msgspec
import trio

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("system", "storage")]

from feed_clients import Record, sse, websocket
from ledgers import PAGES
from stored_ledgers import ALWAYS

from trio_swarm.journal.event import START, EventId

GONE = (OSError, EOFError, trio.BrokenResourceError, trio.ClosedResourceError)
LOOK_BACK = 100  # events of its record that a reader asks the history for again: fewer than a journal keeps
LOOK_BACK_MS = 120_000  # and no older: a journal keeps 5 minutes
TOGETHER = 3  # events in one of four publications: all of them, or none
MOST_BYTES = 800  # of a page; a journal of 1 MiB and 1,000 events does not see them, the store does
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Draining(Exception):
    """The service takes nothing more."""


@attrs.define
class Life:
    """One process, from its start to its death."""

    process: trio.Process
    port: int = 0
    ended: trio.Event = attrs.Factory(trio.Event)
    floor: EventId = START  # the highest id that anybody had seen before it
    mark_ms: int = 0  # no id of an earlier life lies above


class Line:
    """One connection for requests, one after the other."""

    def __init__(self, stream):
        self._stream = stream

    async def ask(self, method, path, body=b"", media="application/json"):
        """Gives the decoded answer.

        Raises:
            Draining: the service is ending.
            GONE: it ended without an answer.
        """
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\nContent-Length: {len(body)}"
        await self._stream.send_all(f"{head}\r\n\r\n".encode() + body)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += await self._more()
        length = int(_LENGTH.search(received[:end])[1])
        while len(received) < end + 4 + length:
            received += await self._more()
        answer = received[end + 4 :]
        status = int(received[9:12])
        if status == 503 and b"shutting_down" in answer:
            raise Draining
        assert status == 200, f"{method} {path}: {status} {answer.decode()}"
        return msgspec.json.decode(answer)

    async def call(self, id_, method, *arguments):
        """Call a ledger."""
        answer = await self.ask("POST", f"/v1/ledger/{id_}/call/{method}", msgspec.json.encode(arguments))
        return answer["result"]

    async def _more(self):
        received = await self._stream.receive_some(65536)
        if not received:
            raise EOFError
        return received


@attrs.define
class Client:
    """Works in each life until that is over."""

    crash: object
    name: str
    done: bool = attrs.field(default=False, kw_only=True)

    async def run(self):
        life = None
        while True:
            life = await self.crash.next_life(life)
            try:
                async with await trio.open_tcp_stream("127.0.0.1", life.port) as stream:
                    self.done = await self.work(life, Line(stream))
                    if self.done:
                        return
            except (*GONE, Draining):
                await life.ended.wait()
            except AssertionError as error:
                self.wrong(f"in life {self.crash.lives}: {error}")
                await life.ended.wait()

    async def work(self, life, line):
        """Gives whether all is done.

        Raises:
            Draining, GONE: there will be another life.
            AssertionError: something is not as promised.
        """
        raise NotImplementedError

    def wrong(self, what):
        self.crash.wrong(f"{self.name}: {what}")


@attrs.define
class Caller(Client):
    """Calls one ledger: turn after turn, and never the next before the last one's fate is known."""

    sent: int = 0
    answered: int = 0
    jots_sent: int = 0
    jots_answered: int = 0
    unanswered_but_kept: int = 0

    async def work(self, life, line):
        crash = self.crash
        self.check(await line.call(self.name, "state"))
        while not crash.resting:
            if crash.rng.random() < 0.3:
                self.jots_sent += 1
                await line.call(self.name, "jot", self.jots_sent)
                self.jots_answered = self.jots_sent
            self.sent = number = self.answered + 1
            size, cleared = crash.rng.randrange(MOST_BYTES), crash.rng.random() < 0.05
            given = await line.call(self.name, "enter", number, size, cleared)
            assert given == number
            self.answered = number
            crash.heard("answer")
            await trio.sleep(crash.rng.expovariate(crash.rate))
        return True

    async def compare(self, life, reader):
        """At the end: each alarm has rung, its effect is stored once, and its event was seen once."""
        async with await trio.open_tcp_stream("127.0.0.1", life.port) as stream:
            line = Line(stream)
            ticks = await line.call(self.name, "rest")
            state = await line.call(self.name, "state")
        turns = list(range(1, self.answered + 1))
        await self.crash.wait(f"{reader.name} has {ticks} ticks", lambda: len(reader.numbers("tick")) >= ticks)
        expected = {"left": len(turns), "rung": len(turns), "rung_sum": sum(turns), "reminded": len(turns)}
        if expected != {name: state.get(name) for name in expected}:
            self.wrong(f"{expected} was to be stored, and there is {state}")
        for name, numbers in (("turn", turns), ("tick", list(range(1, ticks + 1)))):
            if numbers != reader.numbers(name):
                self.wrong(f"{reader.name} was to see {len(numbers)} of {name}, and saw {reader.numbers(name)}")
        if turns != sorted(reader.numbers("rung")):
            self.wrong(f"{len(turns)} alarms were to ring, and these did: {sorted(reader.numbers('rung'))}")
        newest = 0
        for _, (name, number) in reader.seen.events:
            newest = number if name == "turn" else newest
            if name == "reminded" and number != newest:
                self.wrong(f"the reminder of {number} rang after turn {newest}, which had replaced it")
        reminded = reader.numbers("reminded")
        if reminded != sorted(set(reminded)):
            self.wrong(f"reminders: {reminded}")

    def check(self, state):
        """Whole turns, all that were answered, and none that was never sent."""
        left = state.get("left", 0)
        assert self.answered <= left <= self.sent, f"at {left}, answered {self.answered}, sent {self.sent}"
        assert left == state.get("right", 0) == state.get(f"page:{left % PAGES}", 0), f"half of a turn: {state}"
        assert state.get("rung", 0) <= left, state
        self.unanswered_but_kept += left - self.answered
        self.answered = left
        jotted = state.get("jotted", 0)
        assert self.jots_answered <= jotted <= self.jots_sent, f"{jotted}, answered {self.jots_answered}"


@attrs.define
class Publisher(Client):
    """Publishes 1, 2, 3 … into a channel, under a message id each, and repeats the last one in each life."""

    number: int = 0
    tried: int = 0  # how often the present one was sent
    answered: dict[int, EventId] = attrs.Factory(dict)
    repeated: int = 0  # that had not been answered
    from_before: int = 0  # of those, the ones that were answered with an id of an earlier life

    @property
    def channel(self):
        return self.name.split("/")[0]

    @property
    def stream(self):
        return f"channel/{self.channel}"

    def contents(self, number):
        """What that publication says."""
        count = TOGETHER if number % 4 == 0 else 1
        return [f"{self.name} {number}.{part}" for part in range(count)]

    async def work(self, life, line):
        crash = self.crash
        if self.number:
            known = self.answered.get(self.number)
            id_ = await self.publish(line)
            if known is not None:
                assert known == id_, f"{self.number} was answered with {known}, and its repeat with {id_}"
            else:
                self.repeated += 1
                self.from_before += id_.ms <= life.mark_ms
                self.answered[self.number] = id_
        while not crash.resting:
            self.number += 1
            id_ = await self.publish(line)
            assert id_ > life.floor, f"{id_} was given, and {life.floor} had been seen before this life"
            self.answered[self.number] = id_
            crash.heard("answer")
            await trio.sleep(crash.rng.expovariate(crash.rate))
        return True

    async def publish(self, line):
        lines = [
            msgspec.json.encode({"data": {"said": said}, "durable": True, "messageId": f"{self.name} {self.number}"})
            for said in self.contents(self.number)
        ]
        media = "application/json" if len(lines) == 1 else "application/x-ndjson"
        answer = await line.ask("POST", f"/v1/{self.stream}/publish", b"\n".join(lines), media)
        assert answer["count"] == len(lines), answer
        return EventId.parse(answer["id"])


@attrs.define
class Seen(Record):
    """What a reader was given, in order: ids and contents."""

    reader: "Reader | None" = None
    events: list = attrs.Factory(list)
    values: dict = attrs.Factory(lambda: defaultdict(list))  # by the name in the content

    def event(self, id, data):
        super().event(id, data)
        [content] = msgspec.json.decode(data).items()
        self.events.append((EventId.parse(id), content))
        self.values[content[0]].append(content[1])
        self.reader.crash.saw(self.events[-1][0])


@attrs.define
class Reader(Client):
    """Reads one stream through all lives, over SSE or over a WebSocket; asks the history for what it saw before."""

    stream: str = ""
    topics: tuple[str, ...] = ()
    over_websocket: bool = False
    seen: Seen = None

    def __attrs_post_init__(self):
        self.seen = Seen(self.name, None, gaps=None, reader=self)

    async def work(self, life, line):
        seen = self.seen
        await self.look_back(life, line)
        try:
            if self.over_websocket:
                await websocket(seen, life.port, self.stream, since=seen.position or "0-0", topics=self.topics)
            elif seen.position:
                await sse(seen, life.port, self.path("events"), last_event_id=seen.position)
            else:
                await sse(seen, life.port, self.path("events", since="0-0"))
        finally:
            strange = [said for said in seen.strange if not said.startswith("HTTP/1.1 503")]  # it is ending
            seen.strange.clear()
        assert not strange, f"it was told {strange}"
        assert not seen.out_of_order, f"{seen.out_of_order} events out of order"
        raise EOFError

    async def look_back(self, life, line):
        """Everything that it saw is in the history, nothing else before the last of it, and nothing is lost."""
        seen = self.seen.events[-LOOK_BACK - 1 :]
        if not seen:
            return
        seen = [event for event in seen if event[0].ms >= seen[-1][0].ms - LOOK_BACK_MS]
        since = seen[0][0]
        told = await line.ask("GET", self.path("history", since=since, limit=1000))
        kept = [(EventId.parse(event["id"]), *event["data"].items()) for event in told["events"]]
        assert not told["gap"], f"a gap after {since}"
        assert seen[1:] == kept[: len(seen) - 1], f"it saw {seen[1:]}, and the history holds {kept[: len(seen) - 1]}"
        new = [event[0] for event in kept[len(seen) - 1 :]]
        assert all(id_ > seen[-1][0] for id_ in new), f"{seen[-1][0]} was seen, and now there are {new}"
        if self.topics:
            # The first events of `late` were not durable: whoever has not had them is told so, now and always.
            first = self.seen.events[0][0]
            told = await line.ask("GET", f"/v1/{self.stream}/history?topics=late&since={first}")
            assert told["gap"], f"no gap in `late` after {first}"

    def has_begun(self):
        """Whether there is something to resume by in each of its topics."""
        return all(self.numbers(name) for name in ("turn", "rung", "reminded", "tick"))

    def has_rung(self, turns):
        """Whether it has seen the alarms of so many turns."""
        return len(self.numbers("rung")) >= turns and self.numbers("reminded")[-1:] == [turns]

    def has_all(self, publishers):
        """Whether it has seen the last event of each."""
        said = set(self.numbers("said"))
        return all(publisher.contents(publisher.number)[-1] in said for publisher in publishers)

    def compare(self, publishers):
        """At the end: each publication was seen once, whole, under the id that was answered."""
        said = self.numbers("said")
        due = [text for p in publishers for number in p.answered for text in p.contents(number)]
        if sorted(due) != sorted(said):
            twice = [text for text in set(said) if said.count(text) > 1]
            self.wrong(f"missing {set(due) - set(said)}, too much {set(said) - set(due)}, twice {twice}")
        ids = {text: id_ for id_, (_, text) in self.seen.events}
        for publisher in publishers:
            for number, id_ in publisher.answered.items():
                seen = ids.get(publisher.contents(number)[-1])
                if seen != id_:
                    self.wrong(f"{publisher.name} {number} was answered with {id_}, and seen as {seen}")

    def path(self, what, **query):
        if self.topics:
            query["topics"] = ",".join(self.topics)
        return f"/v1/{self.stream}/{what}?" + "&".join(f"{name}={value}" for name, value in query.items())

    def numbers(self, field):
        """What it saw of one kind, in order."""
        return self.seen.values[field]


def make_clients(crash, ledgers, channels):
    """Callers, publishers and readers for so many objects; every fourth reader is on a WebSocket."""
    callers = [Caller(crash, f"l{n}") for n in range(ledgers)]
    publishers = [Publisher(crash, f"c{n}/{who}") for n in range(channels) for who in "ab"]
    streams = [(f"ledger/l{n}", ALWAYS) for n in range(ledgers)] + [(f"channel/c{n}", ()) for n in range(channels)]
    readers = [
        Reader(crash, f"reader of {stream}", stream, topics, n % 4 == 3) for n, (stream, topics) in enumerate(streams)
    ]
    return callers, publishers, readers
