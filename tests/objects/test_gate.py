"""The gate: nothing leaves before the commits in front of it, and a failed one takes all behind it down."""

import msgspec
import pytest
import trio

from trio_swarm.errors import ObjectRestarted, StorageError, SwarmClosed, SwarmError
from trio_swarm.fanout.encoding import EVENTS
from trio_swarm.journal.event import START
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import Limits, ObjectSettings, Settings
from trio_swarm.storage.memory import LEAST_BYTES, MemoryStorage
from trio_swarm.testing.leaks import assert_no_leaks
from trio_swarm.testing.slow_storage import SlowStorage
from trio_swarm.testing.small_swarm import open_directory


class Account(DurableObject):
    async def start(self):
        self.balance = await self.storage.get("balance", 0)
        self.turns = 0

    async def pay(self, amount, seconds=0):
        """Stores and publishes."""
        self.turns += 1
        self.storage.put("balance", await self.storage.get("balance", 0) + amount)
        self.publish("paid", amount)
        await trio.sleep(seconds)
        return await self.storage.get("balance")

    async def note(self, text):
        """Publishes only."""
        self.turns += 1
        self.publish("note", text)
        return text

    async def hold(self, text):
        self.storage.put("text", text)

    async def read(self):
        self.turns += 1
        return await self.storage.get("balance", 0)

    async def snapshot(self):
        return {"balance": await self.storage.get("balance", 0)}

    async def open_feed(self, feed):
        self.feed(feed)

    async def on_message(self, feed, message):
        self.publish("fed", message)


class Callers:
    """Calls under way, with the order and kind of their ends."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.ends = []

    async def start(self, name, call, *args):
        async def run():
            try:
                self.ends.append((name, await call(*args)))
            except SwarmError as error:
                self.ends.append((name, type(error)))

        self.nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def callers(nursery):
    return Callers(nursery)


def journal(swarm, name="account/a"):
    stream = swarm.streams.get(name)
    return [] if stream is None else [msgspec.json.decode(e.data) for e in stream.journal.history(None, START, 100)[0]]


async def test_nothing_leaves_before_its_commit(autojump_clock, callers):
    """The next turns begin, read what is not committed, and wait with their outcomes; then all leave in order."""
    storage = SlowStorage(holding=True)
    async with open_directory(Account, storage=storage) as swarm:
        account = swarm.get(Account, "a")
        await callers.start("pay", account.pay, 5)
        await callers.start("note", account.note, "x")
        await callers.start("again", account.pay, 2)
        await callers.start("read", account.read)
        assert ([], [], 4) == (callers.ends, journal(swarm), account.statistics().at_gate)
        storage.release(1)
        await trio.testing.wait_all_tasks_blocked()
        assert ([("note", "x"), ("pay", 5)], [5, "x"]) == (sorted(callers.ends), journal(swarm))
        storage.release(1)
        await trio.testing.wait_all_tasks_blocked()
        assert [("again", 7), ("read", 7)] == sorted(callers.ends[2:])
        assert [5, "x", 2] == journal(swarm)
        storage.holding = False


async def test_ids_rise_in_turn_order(autojump_clock, callers):
    """They are given as turns end, whatever the commits do meanwhile."""
    storage = SlowStorage(holding=True)
    async with open_directory(Account, storage=storage) as swarm:
        account = swarm.get(Account, "a")
        for n in range(3):
            await trio.sleep(1)
            await callers.start(n, account.pay, n)
        storage.release()
        events, _ = await account.history(since=START)
        assert [0, 1000, 2000] == [event.id.ms - events[0].id.ms for event in events]
        storage.holding = False


async def test_a_failed_commit_fails_all_turns_behind_it(autojump_clock, callers, logs):
    """Its caller gets StorageError; later turns, the running one and those in the lane ObjectRestarted."""
    storage = SlowStorage()
    async with open_directory(Account, storage=storage) as swarm:
        account = swarm.get(Account, "a")
        await account.pay(100)
        storage.holding = True
        await callers.start("before", account.pay, 1)
        await callers.start("fails", account.pay, 2)
        await callers.start("behind", account.note, "x")
        await callers.start("later commit", account.pay, 3)
        await callers.start("running", account.pay, 4, 20)
        await callers.start("in the lane", account.read)
        storage.release(1)
        storage.fail()
        storage.holding = False
        await trio.testing.wait_all_tasks_blocked()
        assert {
            "before": 101,
            "fails": StorageError,
            "behind": ObjectRestarted,
            "later commit": ObjectRestarted,
            "in the lane": ObjectRestarted,
            "running": ObjectRestarted,
        } == dict(callers.ends)
        assert [100, 1] == journal(swarm)
        storage.release()
        assert 101 == await account.read()
        assert (2, 0) == (account.statistics().lives, account.statistics().crashes)
        assert [100, 1] == journal(swarm)


async def test_a_refused_commit_restarts_the_object(autojump_clock, logs):
    """The store's own refusal, told before `submit` returns, takes the same way."""
    settings = Settings(limits=Limits(memory_store_bytes=LEAST_BYTES))
    async with open_directory(Account, storage=MemoryStorage(LEAST_BYTES), settings=settings) as swarm:
        account = swarm.get(Account, "a")
        await account.pay(1)
        with pytest.raises(StorageError):
            await account.hold("x" * 100_000)
        assert 1 == await account.read()
        assert 2 == account.statistics().lives


async def test_a_full_gate_lets_no_further_turn_begin(autojump_clock, callers):
    """With three turns at the gate the fourth waits in its lane, whether it stores or not."""
    storage = SlowStorage(holding=True)
    settings = Settings(objects=ObjectSettings(commits_in_flight=3))
    async with open_directory(Account, storage=storage, settings=settings) as swarm:
        account = swarm.get(Account, "a")
        for n in range(6):
            await callers.start(n, account.note if n else account.pay, n)
        statistics = account.statistics()
        assert (3, 3, 4) == (statistics.at_gate, statistics.mailbox.call, statistics.turns)
        storage.release()
        await trio.testing.wait_all_tasks_blocked()
        assert list(range(6)) == sorted(name for name, _ in callers.ends)
        assert [0, 1, 2, 3, 4, 5] == journal(swarm)
        storage.holding = False


async def test_waiting_for_a_slow_store_is_no_turn(autojump_clock, callers):
    """However long the gate is full, no deadline passes meanwhile."""
    storage = SlowStorage(holding=True)
    settings = Settings(objects=ObjectSettings(commits_in_flight=1))
    async with open_directory(Account, storage=storage, settings=settings) as swarm:
        account = swarm.get(Account, "a")
        await callers.start("pay", account.pay, 5)
        await callers.start("read", account.read)
        await trio.sleep(100)
        storage.release()
        await trio.testing.wait_all_tasks_blocked()
        assert [("pay", 5), ("read", 5)] == sorted(callers.ends)
        assert 1 == account.statistics().lives
        storage.holding = False


async def test_a_snapshot_leaves_through_the_gate(autojump_clock, callers):
    """It waits for the commits of what it shows; its position is the last event before it, and nothing comes twice."""
    storage = SlowStorage(holding=True)
    async with open_directory(Account, storage=storage) as swarm:
        account = swarm.get(Account, "a")
        await callers.start("pay", account.pay, 5)
        openings = []

        async def read():
            async with account.watch() as reader:
                openings.append((reader.opening.snapshot, reader.opening.id))
                openings.append((await anext(reader)).data)

        callers.nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert [] == openings
        await callers.start("after", account.pay, 1)
        storage.release(1)
        await trio.testing.wait_all_tasks_blocked()
        events, _ = await account.history(since=START)
        assert [(b'{"balance":5}', events[0].id)] == openings
        storage.release()
        await trio.testing.wait_all_tasks_blocked()
        assert b"1" == openings[1]
        storage.holding = False


async def test_a_snapshot_lost_with_its_incarnation_is_asked_again(autojump_clock, callers, logs):
    """A reader that waited when a commit failed gets the state of the next life."""
    storage = SlowStorage(holding=True)
    async with open_directory(Account, storage=storage) as swarm:
        account = swarm.get(Account, "a")
        await callers.start("pay", account.pay, 5)
        snapshots = []

        async def read():
            async with account.watch() as reader:
                snapshots.append(reader.opening.snapshot)

        callers.nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        storage.holding = False
        storage.fail()
        await trio.sleep(2)
        assert [b'{"balance":0}'] == snapshots


class Sink:
    def __init__(self):
        self.ready = True
        self.on_ready = None
        self.got = []

    def write(self, payload):
        self.got += payload

    def abort(self, reason):
        self.ready = False


class Flapping:
    name = "odds"

    async def run(self, deliver, status):
        for n in range(50):
            status("connecting", str(n))
            status("live", None)
        await deliver("hello")
        await trio.sleep_forever()


async def test_a_feeds_state_leaves_through_the_gate_and_only_the_newest(autojump_clock, callers):
    """While a commit is under way states wait, one a feed, behind what was before them."""
    storage = SlowStorage(holding=True)
    async with open_directory(Account, storage=storage) as swarm:
        account = swarm.get(Account, "a")
        await callers.start("pay", account.pay, 5)
        sink = Sink()
        subscription = await account.subscribe(sink, encoding=EVENTS, since=START)
        await subscription.opened()
        subscription.start()
        await callers.start("feed", account.open_feed, Flapping())
        await trio.sleep(1)
        assert ([], 4) == (sink.got, account.statistics().at_gate)  # pay, open_feed, the state, the message
        storage.release()
        await trio.testing.wait_all_tasks_blocked()
        assert [("live", None)] == [(n.state, n.reason) for n in sink.got if hasattr(n, "state")]
        assert [b"5", b'"hello"'] == [n.data for n in sink.got if hasattr(n, "data")]
        subscription.close()
        storage.holding = False


async def test_a_restart_waits_for_the_commits_of_the_old_life(autojump_clock, callers, logs):
    """What was under way when the object crashed is read by the next life, and its answers and events still leave."""
    storage = SlowStorage(holding=True)
    async with open_directory(Account, storage=storage) as swarm:
        account = swarm.get(Account, "a")
        await callers.start("pay", account.pay, 5)
        await callers.start("hangs", account.pay, 1, 1000)
        await trio.sleep(40)
        assert [] == callers.ends
        await callers.start("next", account.read)
        storage.holding = False
        storage.release()
        await trio.sleep(2)
        assert ("pay", 5) in callers.ends
        assert ("next", 5) in callers.ends
        assert [5] == journal(swarm)
        assert {"pay", "hangs", "next"} == {name for name, _ in callers.ends}


async def test_closing_gives_a_slow_store_its_time_and_then_leaves(autojump_clock):
    """Two seconds after the scope ends the caller is told that the outcome is not known, and nothing hangs."""
    storage, ends = SlowStorage(holding=True), []
    async with trio.open_nursery() as nursery:
        with assert_no_leaks() as check:
            async with open_directory(Account, storage=storage) as swarm:
                check.watch(swarm)

                async def pay():
                    with pytest.raises(SwarmClosed):
                        await swarm.get(Account, "a").pay(5)
                    ends.append(trio.current_time())

                nursery.start_soon(pay)
                await trio.sleep(1)
            assert 3 == trio.current_time()
            await trio.testing.wait_all_tasks_blocked()
        assert [3] == ends
        storage.release()  # a late outcome is heard by nobody


async def test_closing_waits_for_commits_that_come(autojump_clock):
    """A commit that is safe within that time is answered as ever."""
    storage, ends = SlowStorage(holding=True), []
    async with trio.open_nursery() as nursery:

        async def release_later():
            await trio.sleep(2)
            storage.release()

        async def pay(account):
            ends.append(await account.pay(5))

        nursery.start_soon(release_later)
        async with open_directory(Account, storage=storage) as swarm:
            account = swarm.get(Account, "a")
            nursery.start_soon(pay, account)
            await trio.sleep(1)
        assert 2 == trio.current_time()
    assert [5] == ends
