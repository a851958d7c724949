"""Both stores against one model of plain dicts: values, alarms, history, what is refused, and what is counted."""

import os
import sqlite3
from contextlib import asynccontextmanager, closing

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_swarm.errors import StorageError
from trio_swarm.journal.clock import RESERVE_MS
from trio_swarm.journal.event import Draft, EventId
from trio_swarm.journal.history import History, KeptMessage, KeptTopic, Losses
from trio_swarm.journal.journal import OVERHEAD_BYTES
from trio_swarm.settings import JournalSettings
from trio_swarm.storage import ALARM_BYTES, Alarm, Commit, Due, Record, SetAlarm
from trio_swarm.storage.histories import MESSAGES_MS, SLACK, SWEPT_EVENTS
from trio_swarm.storage.memory import MemoryStorage
from trio_swarm.storage.schema import APPLICATION, MIGRATIONS, VERSION
from trio_swarm.storage.sqlite import SqliteStorage
from trio_swarm.storage.tables import Tables

TIMES = int(os.environ.get("TRIO_SWARM_EXAMPLES", "1"))  # so many times the examples of every run

OBJECT_BYTES = 1_000
OWNERS = [("game", "a"), ("game", "b"), ("room", "a")]
KINDS = [("game",), ("room",), ("game", "room"), ("nobody",)]
KEYS = ["a", "ab", "b", "é"]
TOPICS = ["", "x", "L", "M"]  # capitals are `latest`
EVENT_KEYS = [None, "", "k"]


def is_latest(topic):
    return topic.isupper()


@attrs.frozen
class Kept:
    """An event as the model has it."""

    id: EventId
    draft: Draft

    @property
    def size(self):
        return len(self.draft.data) + OVERHEAD_BYTES

    @property
    def slot(self):
        return (self.draft.topic, self.draft.key)


@attrs.define
class HistoryModel:
    """One object's durable history: events that may be there still, and what is known of its topics."""

    losses: Losses
    until_ms: int
    topics: dict = attrs.Factory(dict)  # name to (count, mark)
    events: list = attrs.Factory(list)
    keep: JournalSettings | None = None
    newest_ms: int = 0
    messages: list[KeptMessage] = attrs.Factory(list)


@attrs.define
class ObjectModel:
    pairs: dict = attrs.Factory(dict)
    alarms: dict = attrs.Factory(dict)
    history: HistoryModel | None = None

    @property
    def bytes(self):
        values = sum(len(key.encode()) + len(value) for key, value in self.pairs.items())
        alarms = sum(len(key.encode()) + len(alarm.data) + ALARM_BYTES for key, alarm in self.alarms.items())
        return values + alarms


def before(id_):
    """An id below this one, above all that were given before it."""
    return EventId(id_.ms, id_.counter - 1) if id_.counter else EventId(max(0, id_.ms - 1), 2**62)


def add_record(history, record, first):
    """The history with a record, before anything is let go."""
    if history is None:
        losses = record.losses or Losses(first, lossy=True)
        age_ms = round(record.keep.age_s * 1000)
        history = HistoryModel(losses, losses.floor.ms + age_ms)
    elif record.losses is not None:
        history.losses = record.losses
    for name in record.ended:
        if name in history.topics:
            gone = [kept.id for kept in history.events if kept.draft.topic == name]
            floor = max(history.losses.floor, history.topics.pop(name)[1], *gone)
            history.losses = Losses(floor, history.losses.lossy)
            history.events = [kept for kept in history.events if kept.draft.topic != name]
    for id_, draft in record.events:
        kept = Kept(id_, attrs.evolve(draft, durable=True))
        if draft.topic in record.latest:
            history.events = [other for other in history.events if other.slot != kept.slot]
        history.events.append(kept)
        count, mark = history.topics.get(draft.topic, (0, record.begun.get(draft.topic, first)))
        history.topics[draft.topic] = (count + 1, mark)
    if record.message is not None:
        since_ms = record.message.id.ms - MESSAGES_MS
        history.messages = [kept for kept in history.messages if kept.id.ms >= since_ms] + [record.message]
    if record.events:
        history.keep = record.keep
        history.newest_ms = record.events[-1][0].ms
        history.until_ms = history.newest_ms + round(record.keep.age_s * 1000)
    return history


def check_retention(model, real):
    """What the store has let go is what it may, and no less than it must; the model's marks follow."""
    keep, events = model.keep, model.events
    kept = [id_ for id_, _ in real.events]
    gone = events[: len(events) - len(kept)]
    assert [event.id for event in events[len(gone) :]] == kept
    for event_ in gone:
        count, _ = model.topics[event_.draft.topic]
        model.topics[event_.draft.topic] = (count, event_.id)
    model.events = events = events[len(gone) :]
    if keep is None or not (events or gone):
        return
    size, age_ms = sum(event.size for event in events), round(keep.age_s * 1000)
    if len(events) > 1:
        assert len(events) <= keep.events + max(SLACK, keep.events // SLACK)
        assert size <= keep.bytes + keep.bytes // SLACK
        assert events[0].id.ms >= model.newest_ms - age_ms - age_ms // SLACK
    if gone:
        newest = gone[-1]
        assert (
            len(events) + 1 > keep.events or size + newest.size > keep.bytes or newest.id.ms < model.newest_ms - age_ms
        )


class World:
    """A store and its model."""

    def __init__(self, store, database, keep):
        self.store = store
        self.database = database  # gives a connection to look at the tables with
        self.keep = keep
        self.objects = {owner: ObjectModel() for owner in OWNERS}
        self.lives = dict.fromkeys(OWNERS, 1)
        self.refused = set()
        self.last = EventId(1_000, 0)
        self.mark_ms = 0
        self.seen = {}  # every alarm that was ever read, by its number
        self.expected, self.told = [], []

    def now_ms(self):
        return self.last.ms

    # Commits

    def submit(self, draw):
        owner, changes, clear, alarms, record, fault, begins = draw
        if begins and owner in self.refused:
            self.lives[owner] += 1
            self.refused.discard(owner)
        changes = {key: None if size is None else b"v" * size for key, size in changes.items()}
        alarms = {
            key: None if alarm is None else Alarm(self.now_ms() + alarm[0], b"d" * alarm[1], alarm[2])
            for key, alarm in alarms.items()
        }
        record, first = (None, None) if record is None else self.record(*record, twice=fault == "event twice")
        if fault == "no text":
            changes = {**changes, "\ud800": b""}
        if fault == "too large":
            changes = {**changes, "large": b"v" * (OBJECT_BYTES + 1)}
        commit = Commit(owner, self.lives[owner], changes, clear, record, alarms)
        number = len(self.expected)
        good = owner not in self.refused and self.apply(commit, first, fault)
        if not good:
            self.refused.add(owner)
        self.expected.append(good)
        self.store.submit(commit, lambda error: self.told.append((number, error)))

    def record(self, events, begun, ended, losses, message, *, twice):
        stamped = []
        for topic, key, size, step in events:
            self.last = EventId(self.last.ms + step, 0) if step else EventId(self.last.ms, self.last.counter + 1)
            stamped.append((self.last, Draft(b"e" * size, topic, "goal", key)))
        if twice:
            stamped += [(EventId(self.last.ms, self.last.counter + 1), Draft(b"", "x"))] * 2
        topics = {draft.topic for _, draft in stamped}
        first = before(stamped[0][0]) if stamped else EventId(0, 0)
        record = Record(
            stamped,
            self.keep,
            begun={topic: EventId(7, 7) for topic in begun if topic in topics},
            ended=frozenset(ended) - topics,
            losses=None if losses is None else Losses(EventId(losses[0], 0), losses[1]),
            latest=frozenset(filter(is_latest, topics)),
            message=None if message is None or not stamped else KeptMessage(message, stamped[-1][0], len(stamped)),
        )
        return record, first

    def apply(self, commit, first, fault):
        model = self.objects[commit.owner]
        pairs = {} if commit.clear else dict(model.pairs)
        alarms = dict(model.alarms)
        for target, changes in ((pairs, commit.changes), (alarms, commit.alarms)):
            for key, value in changes.items():
                if value is None:
                    target.pop(key, None)
                else:
                    target[key] = value
        changed = ObjectModel(pairs, alarms, model.history)
        twice = fault == "event twice" and commit.record is not None
        if fault == "no text" or changed.bytes > OBJECT_BYTES or twice:
            return False
        model.pairs, model.alarms = pairs, alarms
        if commit.record is not None:
            model.history = add_record(model.history, commit.record, first)
        return True

    async def settle(self):
        """All outcomes are told, in order, and are those that were expected."""
        with trio.fail_after(10):
            while True:
                if len(self.told) == len(self.expected):
                    break
                await trio.sleep(0.0005)
        assert list(range(len(self.expected))) == [number for number, _ in self.told]
        assert self.expected == [error is None for _, error in self.told]
        assert {StorageError, type(None)} >= {type(error) for _, error in self.told}

    # Everything else

    async def operate(self, operation):
        what, *draw = operation
        if what == "commits":
            recorded = set()
            for commit in draw[0]:
                owner, *_, record, _, _ = commit
                if record is not None and owner in recorded:  # only after each record can be judged what was let go
                    await self.settle()
                    await self.retention()
                    recorded.clear()
                if record is not None:
                    recorded.add(owner)
                self.submit(commit)
            await self.settle()
            await self.retention()
            return
        match what:
            case "amend":
                if self.seen:
                    found = self.seen[sorted(self.seen)[draw[0] % len(self.seen)]]
                    model = self.objects[found.owner]
                    before = await self.store.alarm(found.owner, found.key)
                    to = None if draw[1] is None else Alarm(self.now_ms() + draw[1], found.alarm.data, draw[2])
                    await self.store.amend(found, to)
                    if before is not None and before.number == found.number:
                        model.alarms.pop(found.key)
                        model.alarms |= {} if to is None else {found.key: to}
            case "reserve":
                age_ms = round(self.keep.age_s * 1000) if draw[1] else 0
                until_ms = self.now_ms() + RESERVE_MS + age_ms + draw[0]
                await self.store.reserve_clock(until_ms)
                self.mark_ms = max(self.mark_ms, until_ms)
                for model in self.objects.values():
                    if model.history is not None and model.history.until_ms < until_ms - RESERVE_MS:
                        model.history = None
        await self.retention()

    async def retention(self):
        """Every history is what it may be."""
        for owner, model in self.objects.items():
            real = await self.store.history(owner)
            if model.history is None:
                assert real is None
                continue
            check_retention(model.history, real)
            history = model.history
            assert real == History(
                history.losses,
                {name: KeptTopic(count, mark) for name, (count, mark) in history.topics.items()},
                [(kept.id, kept.draft) for kept in history.events],
                history.messages,
            )
        self.sums()

    def sums(self):
        """What is counted is what is there, and no row is left of what is gone."""
        with closing(self.database()) as look:
            rows = look.execute("SELECT kind, id, bytes FROM object").fetchall()
            expected = {
                (*owner, model.bytes)
                for owner, model in self.objects.items()
                if model.bytes or model.history is not None
            }
            assert expected == set(rows)
            counted = look.execute(
                "SELECT object, events, bytes FROM history EXCEPT SELECT history.object, count(ms),"
                " ifnull(sum(length(data) + ?), 0)"
                " FROM history LEFT JOIN event ON event.object = history.object GROUP BY history.object",
                (OVERHEAD_BYTES,),
            )
            assert [] == counted.fetchall()
            for table in ("pair", "alarm", "history", "topic", "event"):
                orphans = f"SELECT object FROM {table} EXCEPT SELECT number FROM object"  # noqa: S608 - names of our own
                assert [] == look.execute(orphans).fetchall()
            for parts, whole in (("topic", "history"), ("event", "history")):
                orphans = f"SELECT object FROM {parts} EXCEPT SELECT object FROM {whole}"  # noqa: S608 - our own names
                assert [] == look.execute(orphans).fetchall()
            orphans = "SELECT object, topic FROM event EXCEPT SELECT object, number FROM topic"
            assert [] == look.execute(orphans).fetchall()

    async def check(self):
        """Every read gives what the model has."""
        assert self.mark_ms == await self.store.clock_mark()
        for owner, model in self.objects.items():
            assert model.pairs == await self.store.get_many(owner, [*KEYS, "nowhere"])
            for prefix, start, limit, reverse in (("", None, 9, False), ("a", "ab", 2, False), ("", "b", 2, True)):
                wanted = sorted(
                    (
                        (key, value)
                        for key, value in model.pairs.items()
                        if key.startswith(prefix) and (start is None or (key <= start if reverse else key >= start))
                    ),
                    reverse=reverse,
                )
                assert wanted[:limit] == await self.store.scan(owner, prefix, start, limit, reverse=reverse)
            for key in KEYS:
                found = await self.store.alarm(owner, key)
                assert model.alarms.get(key) == (found and found.alarm)
                if found is not None:
                    known = self.seen.setdefault(found.number, found)
                    assert (known.owner, known.key, known.alarm.data) == (found.owner, found.key, found.alarm.data)
        for kinds in KINDS:
            await self.check_due(kinds)

    async def check_due(self, kinds):
        alarms = {
            (owner, key): alarm
            for owner, model in self.objects.items()
            for key, alarm in model.alarms.items()
            if owner[0] in kinds
        }
        for now_ms in (0, self.now_ms(), self.now_ms() + 50, 10**12):
            due = sorted(alarm.due_ms for alarm in alarms.values() if alarm.due_ms <= now_ms)
            later = [alarm.due_ms for alarm in alarms.values() if alarm.due_ms > now_ms]
            assert len(due) == await self.store.count_alarms(kinds, now_ms)
            for limit in (1, 2, 100):
                found = await self.store.due_alarms(kinds, now_ms, limit)
                assert due[:limit] == [one.alarm.due_ms for one in found.alarms]
                assert min(later, default=None) == found.next_ms
                given_ = {(one.owner, one.key): one.alarm for one in found.alarms}
                assert len(found.alarms) == len(given_)
                assert given_.items() <= alarms.items()


def some(element, most=3):
    return st.lists(element, max_size=most)


alarm = st.tuples(st.sampled_from([-10, 0, 40, 5_000]), st.sampled_from([0, 3, 300]), st.integers(1, 7))
event_ = st.tuples(
    st.sampled_from(TOPICS), st.sampled_from(EVENT_KEYS), st.sampled_from([0, 1, 200]), st.sampled_from([0, 1, 30, 700])
)
record = st.tuples(
    some(event_) | st.lists(event_, min_size=12, max_size=30),
    some(st.sampled_from(TOPICS), 2),
    some(st.sampled_from(TOPICS), 2),
    st.none() | st.tuples(st.integers(0, 50), st.booleans()),
    st.sampled_from([None, "m1", "m2"]),
)
commit = st.tuples(
    st.sampled_from([*[OWNERS[0]] * 4, *OWNERS[1:]]),
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from([None, 0, 1, 400]), max_size=3),
    st.sampled_from([False, False, False, True]),
    st.dictionaries(st.sampled_from(KEYS), st.none() | alarm, max_size=2),
    st.none() | record | record,
    st.sampled_from([*[None] * 9, "no text", "too large", "event twice", "event twice"]),
    st.sampled_from([True, True, False]),  # whether a refused incarnation is followed by the next one
)
operation = st.one_of(
    st.tuples(st.just("commits"), st.lists(commit, min_size=1, max_size=4)),
    st.tuples(st.just("commits"), st.lists(commit, min_size=1, max_size=4)),
    st.tuples(st.just("amend"), st.integers(0, 99), st.sampled_from([-100, 7, 9_000, None]), st.integers(1, 3)),
    st.tuples(st.just("reserve"), st.sampled_from([-RESERVE_MS, 0, 1, 400]), st.sampled_from([True, True, False])),
    st.tuples(st.just("reopen")),
)
keeps = st.builds(
    JournalSettings, events=st.sampled_from([1, 3, 20, 400]), bytes=st.sampled_from([100, 1_500, 10**6]),
    age_s=st.sampled_from([0.02, 1.0, 1000.0]),
)  # fmt: skip


@asynccontextmanager
async def memory_world(keep, _path):
    """What is remembered beside the tables is forgotten by `reopen`."""
    store = MemoryStorage()
    store._tables = Tables(store._connection, store._explain, OBJECT_BYTES)

    class Borrowed:
        execute = store._connection.execute
        close = staticmethod(lambda: None)

    async def reopen(world):
        store._tables = Tables(store._connection, store._explain, OBJECT_BYTES)

    yield World(store, Borrowed, keep), reopen
    await store.aclose()


@asynccontextmanager
async def sqlite_world(keep, path):
    async def opened():
        return await SqliteStorage.open(path, object_bytes=OBJECT_BYTES, synchronous="OFF")

    world = World(await opened(), lambda: sqlite3.connect(path), keep)

    async def reopen(world):
        await world.store.aclose()
        world.store = await opened()

    try:
        yield world, reopen
    finally:
        with trio.CancelScope(shield=True), trio.fail_after(10):
            await world.store.aclose()


def carry_out(opened, keep, operations, path):
    async def main():
        async with opened(keep, path) as (world, reopen):
            for operation in operations:
                if operation[0] == "reopen":
                    await reopen(world)
                    world.refused.clear()
                else:
                    await world.operate(operation)
                await world.check()

    trio.run(main)


@settings(max_examples=80 * TIMES, deadline=None)
@given(keeps, st.lists(operation, max_size=4) | st.lists(operation, min_size=6, max_size=12))
def test_the_memory_store_is_what_the_model_is(keep, operations):
    """After any commits, refusals, amended alarms and sweeps, whatever it has forgotten of what it remembers."""
    carry_out(memory_world, keep, operations, None)


@settings(max_examples=40 * TIMES, deadline=None)
@given(keeps, st.lists(operation, max_size=4) | st.lists(operation, min_size=6, max_size=12))
def test_the_sqlite_store_is_what_the_model_is(tmp_path_factory, keep, operations):
    """After any commits, refusals, amended alarms and sweeps; and after it was opened again in between."""
    carry_out(sqlite_world, keep, operations, tmp_path_factory.mktemp("model") / "swarm.db")


@pytest.mark.parametrize("opened", [memory_world, sqlite_world], ids=["memory", "sqlite"])
def test_a_long_history_keeps_its_limit_and_a_sixteenth(opened, tmp_path):
    """Hundreds of small records: at every moment between what the limit allows and the slack above it."""
    five = [("x", None, 1, 1)] * 5
    operations = [("commits", [(OWNERS[0], {}, False, {}, (five, [], [], None, "m1"), None, True)] * 20)] * 5
    carry_out(opened, JournalSettings(events=320), operations, tmp_path / "swarm.db")


async def test_what_an_ended_topic_had_is_below_the_floor():
    """Its newest event is, kept or not, and its mark; a floor that is higher already stays; the sums follow."""
    store, keep, outcomes = MemoryStorage(), JournalSettings(events=20), []

    def add(first_ms, topic, count, **more):
        events = [(EventId(first_ms + n, 0), Draft(b"1", topic)) for n in range(count)]
        record_ = Record(events, keep, losses=Losses(EventId(5, 0), lossy=False), **more)
        store.submit(Commit(OWNERS[0], 1, {}, record=record_), outcomes.append)

    floors = []
    add(10, "kept", 3, begun={"kept": EventId(1, 0)})
    add(100, "gone", 2, begun={"gone": EventId(90, 0)})
    add(200, "x", 40)
    add(300, "late", 1)
    for topic in ("late", "gone", "kept"):
        record_ = Record([], keep, ended=frozenset({topic}))
        store.submit(Commit(OWNERS[0], 1, {}, record=record_), outcomes.append)
        floors.append((await store.history(OWNERS[0])).losses.floor.ms)
    assert ({None}, [300, 300, 300]) == (set(outcomes), floors)
    add(400, "kept", 2)
    store.submit(Commit(OWNERS[0], 1, {}, record=Record([], keep, ended=frozenset({"kept"}))), outcomes.append)
    history = await store.history(OWNERS[0])
    assert (Losses(EventId(401, 0), lossy=False), {"x"}) == (history.losses, history.topics.keys())


async def test_a_sweep_forgets_some_at_a_time_the_oldest_first():
    """What is over its age goes in several sweeps where it is much, and a single large one still goes."""
    store = MemoryStorage()
    keep = JournalSettings(events=20_000, age_s=1)
    outcomes = []

    def add(id_, first_ms, count):
        events = [(EventId(first_ms, n), Draft(b"1", "x")) for n in range(count)]
        store.submit(Commit(("game", id_), 1, {}, record=Record(events, keep)), outcomes.append)

    add("second", 200, SWEPT_EVENTS + 1)
    add("first", 100, SWEPT_EVENTS - 1)
    add("third", 300, 1)
    assert [None] * 3 == outcomes
    left = []
    for _ in range(3):
        await store.reserve_clock(1302 + RESERVE_MS)
        left.append([id_ for id_ in ("first", "second", "third") if await store.history(("game", id_)) is not None])
    assert [["second", "third"], ["third"], []] == left


async def test_a_store_of_the_second_version_keeps_its_alarms(tmp_path):
    """They are told apart by their kind, and due as before."""
    path = tmp_path / "swarm.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (*MIGRATIONS[0], *MIGRATIONS[1]):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION}")
        connection.execute("PRAGMA user_version=2")
        connection.execute("INSERT INTO object VALUES (3, 'game', 'a', 67), (4, 'room', 'a', 67)")
        connection.execute("INSERT INTO alarm VALUES (7, 3, 'k', 50, 2, x'c0'), (8, 4, 'l', 40, 1, x'c0')")
    store = await SqliteStorage.open(path)
    try:
        game = SetAlarm(("game", "a"), "k", 7, Alarm(50, b"\xc0", 2))
        room = SetAlarm(("room", "a"), "l", 8, Alarm(40, b"\xc0", 1))
        assert Due([room, game], None) == await store.due_alarms(["game", "room"], 60, 9)
        assert Due([], 50) == await store.due_alarms(["game"], 45, 9)
        assert 1 == await store.count_alarms(["room"], 60)
    finally:
        await store.aclose()


async def test_a_store_of_the_first_version_keeps_its_pairs(tmp_path):
    """It is brought to the present version as it opens, and takes alarms and history."""
    path = tmp_path / "swarm.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in MIGRATIONS[0]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION}")
        connection.execute("PRAGMA user_version=1")
        connection.execute("INSERT INTO meta VALUES ('clock', 17)")
        connection.execute("INSERT INTO object VALUES (3, 'game', 'a', 3)")
        connection.execute("INSERT INTO pair VALUES (3, 'k', x'0102')")
    store = await SqliteStorage.open(path)
    try:
        assert (17, {"k": b"\1\2"}, None) == (
            await store.clock_mark(),
            await store.get_many(OWNERS[0], ["k"]),
            await store.history(OWNERS[0]),
        )
        told, outcomes = trio.Event(), []
        record_ = Record([(EventId(20, 0), Draft(b"1"))], JournalSettings())
        commit_ = Commit(OWNERS[0], 1, {"l": b"3"}, record=record_, alarms={"a": Alarm(5, b"d")})
        store.submit(commit_, lambda error: (outcomes.append(error), told.set()))
        await told.wait()
        assert [None] == outcomes
        assert {"k": b"\1\2", "l": b"3"} == await store.get_many(OWNERS[0], ["k", "l"])
        assert Alarm(5, b"d") == (await store.alarm(OWNERS[0], "a")).alarm
        assert [(EventId(20, 0), Draft(b"1", durable=True))] == (await store.history(OWNERS[0])).events
    finally:
        await store.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert (VERSION,) == connection.execute("PRAGMA user_version").fetchone()


async def test_a_look_for_due_alarms_goes_by_their_time_alone():
    """However many objects a kind has, only its alarms that are due are looked at, and none is sorted."""
    store = MemoryStorage()
    statements = []
    store._connection.set_trace_callback(statements.append)
    await store.due_alarms(["game", "room"], 5, 64)
    await store.count_alarms(["game", "room"], 5)
    store._connection.set_trace_callback(None)
    assert 5 == len(statements)
    for statement in statements:
        plan = [row[3] for row in store._connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert "INDEX alarm_due (kind=? AND due_ms" in plan[0]
        assert plan[0].startswith("SEARCH alarm USING")
        assert not [step for step in plan if "TEMP B-TREE" in step]


async def test_a_look_for_due_alarms_leaves_nothing_open():
    """Not even where there are more than were asked for: what is read lets the log be emptied."""
    store = MemoryStorage()
    for kind in ("game", "room"):
        store.submit(Commit((kind, "a"), 1, {}, alarms={f"{n}": Alarm(n, b"") for n in range(5)}), print)
    assert [0, 0, 1] == [found.alarm.due_ms for found in (await store.due_alarms(["game", "room"], 5, 3)).alarms]
    store._connection.execute("DROP TABLE alarm")  # refused while a statement reads


async def test_a_full_memory_store_that_cannot_amend_says_so():
    """Whatever the database raises as an alarm is amended or the clock's mark moved is a `StorageError`, no more."""
    store = MemoryStorage()
    store.submit(Commit(OWNERS[0], 1, {}, alarms={"a": Alarm(5, b"")}), print)
    found = await store.alarm(OWNERS[0], "a")
    store._connection.execute("PRAGMA query_only=ON")  # as good as full: a real one is only now and then
    with pytest.raises(StorageError):
        await store.amend(found, attrs.evolve(found.alarm, due_ms=10))
    with pytest.raises(StorageError):
        await store.reserve_clock(10)
    store._connection.execute("PRAGMA query_only=OFF")
    await store.amend(found, attrs.evolve(found.alarm, due_ms=10))
    assert 10 == (await store.alarm(OWNERS[0], "a")).alarm.due_ms
