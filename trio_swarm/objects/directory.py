"""The directory: (kind, id) to the one live object, and the nursery where objects live.

Getting a reference starts nothing; the first call, event or reader does, without waiting, so that two who come at
once meet the same object. An object that nobody wants for a grace of 5 s stops; a list of those without readers,
ordered by when to look at each, serves them all with one task. Ending `run` ends every object: each has its `stop`,
and then nothing of it is left.
"""

import contextvars
import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import TYPE_CHECKING, Any, Final, get_args

import attrs
import trio
from cachetools import TTLCache

from trio_swarm.errors import InvalidName, SettingsError, SwarmClosed, TooManyObjects, UnknownKind, UnknownObject
from trio_swarm.fanout.stream import Stream
from trio_swarm.fanout.streams import Streams
from trio_swarm.fanout.subscription import LagPolicy
from trio_swarm.journal.clock import RESERVE_MS, IdClock
from trio_swarm.journal.event import EventId
from trio_swarm.journal.history import KeptMessage
from trio_swarm.journal.journal import Journal, never
from trio_swarm.objects.alarms import AlarmClock
from trio_swarm.objects.durable import DurableObject
from trio_swarm.objects.host import Host
from trio_swarm.objects.items import Published
from trio_swarm.objects.kind_statistics import KindStatistics, Past, feeds_told_apart, look_at_kind
from trio_swarm.objects.methods import Methods
from trio_swarm.objects.reference import Reference
from trio_swarm.objects.store import ObjectStorage
from trio_swarm.settings import REPEAT_S, REPEATS, JournalSettings, Settings
from trio_swarm.settings_rules import first_fault, flatten
from trio_swarm.storage import Owner, Storage
from trio_swarm.wire.names import check_id, check_kind, check_topic

if TYPE_CHECKING:
    from trio_swarm.objects.incarnation import Incarnation

PublishKey = tuple[str, str, str]

RECALLED_S: Final = 60.0  # before a restart and after it: clients come back within ten seconds; it may die once more


class Kind:
    """One class of objects, and what is known of it."""

    def __init__(self, cls: type[DurableObject], settings: Settings, directory: "Directory") -> None:
        _check_class(cls)
        self.cls = cls
        self.name = cls.kind
        self.methods = Methods(cls)
        self.hosts: dict[str, Host] = {}
        self.limit = settings.limits.objects_per_kind
        self.journal: JournalSettings = cls.journal or settings.journal
        self.has_snapshot = cls.snapshot is not DurableObject.snapshot
        self.has_demand = cls.on_demand is not DurableObject.on_demand
        self.has_messages = cls.on_message is not DurableObject.on_message
        self.lag_policy: LagPolicy = cls.lag_policy or ("snapshot" if self.has_snapshot else "skip")
        self.latest: Callable[[str], bool] = (
            _always if "*" in cls.latest else cls.latest.__contains__ if cls.latest else never
        )
        self.durable: Callable[[str], bool] | None = (
            _always if "*" in cls.durable else cls.durable.__contains__ if cls.durable else None
        )
        self.pinned: frozenset[str] = frozenset()
        self.past = Past(feeds_told_apart(self.name, frozenset(feed.name for feed in settings.feed)))
        self._directory = directory

    def make(self, life: "Incarnation") -> DurableObject:
        """The author's object, for one life."""
        host = life.host
        instance = self.cls()
        instance.id = host.id
        instance.swarm = self._directory
        instance.storage = ObjectStorage(self._directory.storage, host.owner, life.overlay, instance)
        instance._life = life  # noqa: SLF001 - its own
        return instance


def _always(_topic: str) -> bool:
    return True


def _check_class(cls: type[DurableObject]) -> None:
    """What an author wrote into the class, while it is still known whose mistake it is.

    Raises:
        SettingsError: an attribute is not what it has to be; it names the class.
    """
    where, name = f"{cls.__module__}.{cls.__qualname__}", cls.__name__
    kind: Any = cls.kind
    journal: Any = cls.journal
    lag_policy: Any = cls.lag_policy
    if not isinstance(kind, str):
        raise SettingsError(where, f"{name}.kind is a name: not {kind!r}")
    if lag_policy is not None and lag_policy not in get_args(LagPolicy):
        known = ", ".join(map(_quoted, get_args(LagPolicy)))
        raise SettingsError(where, f"{name}.lag_policy is one of {known}: not {_quoted(lag_policy)}")
    if journal is not None and not isinstance(journal, JournalSettings):
        raise SettingsError(where, f"{name}.journal is a JournalSettings(events=…, bytes=…, age_s=…): not {journal!r}")
    fault = None if journal is None else first_fault(flatten(journal, "journal."))  # the range of the setting
    if fault is not None:
        raise SettingsError(where, f"{name}.{fault}")
    try:
        check_kind(kind)
        for attribute in ("latest", "durable"):
            _check_topics(where, f"{name}.{attribute}", getattr(cls, attribute))
    except InvalidName as error:
        raise SettingsError(where, str(error)) from error


def _check_topics(where: str, what: str, topics: Any) -> None:
    if not isinstance(topics, AbstractSet) or not all(isinstance(topic, str) for topic in topics):
        given = [topics] if isinstance(topics, str) else topics if isinstance(topics, list | tuple) else ["topic"]
        right = "{" + ", ".join(map(_quoted, given)) + "}"
        raise SettingsError(where, f"{what} is a set of topics: not {_quoted(topics)}, but {right}")
    for topic in topics:
        check_topic(topic)


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


@attrs.frozen
class FeedLook:
    """A moment of one feed of a live object; `statistics` are its own, where it has any."""

    object: str
    name: str
    state: str
    statistics: Any


@attrs.frozen
class DirectoryStatistics:
    """A moment of the directory: objects by kind and state."""

    objects: dict[str, dict[str, int]]
    remembered_messages: int
    turns: int  # since the beginning
    feeds: tuple[FeedLook, ...]


class Directory:
    """See the module.

    Args:
        kinds: the classes of objects served here.
        streams: their journals and readers; it is running.
        storage: where they keep their state; it is open, and stays so until `run` has ended.
        clock: gives the event ids; somebody keeps its reservation ahead.
        settings: limits and times.
        rng: for the jitter of restarts.
    """

    def __init__(
        self,
        kinds: Iterable[type[DurableObject]],
        *,
        streams: Streams,
        storage: Storage,
        clock: IdClock,
        settings: Settings,
        rng: random.Random,
    ) -> None:
        self.streams = streams
        self.storage = storage
        self.clock = clock
        self.settings = settings
        self.rng = rng
        self.kinds: dict[str, Kind] = {}
        for cls in kinds:
            kind = Kind(cls, settings, self)
            if kind.name in self.kinds:
                other = self.kinds[kind.name].cls
                raise SettingsError(
                    f"{cls.__module__}.{cls.__qualname__}",
                    f"another class is of kind {kind.name!r} too: {other.__module__}.{other.__qualname__}",
                )
            self.kinds[kind.name] = kind
        self.published: TTLCache[PublishKey, Published] = TTLCache(REPEATS, REPEAT_S, timer=trio.current_time)
        self.kept_messages: TTLCache[PublishKey, Published] = TTLCache(REPEATS, RECALLED_S, timer=trio.current_time)
        self._recalls_until = trio.current_time() + RECALLED_S
        self.publishing: dict[PublishKey, trio.Event] = {}  # under way; as many as callers wait
        self.alarms = AlarmClock(
            storage,
            lambda owner: self.live(self.kinds[owner[0]], owner[1]),
            tuple(self.kinds),
            settings.alarms,
            clock.now_ms,
            rng,
        )
        self._incarnations = itertools.count(1)
        self._turns = 0  # of objects that are gone
        self._nursery: trio.Nursery | None = None
        self._context = contextvars.copy_context()
        self._looks: list[tuple[float, int, Host]] = []  # a heap: when to look at which object
        self._look_order = itertools.count()
        self._looks_changed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the objects until cancelled; then all of them end, each in order.

        Raises:
            TooManyObjects: more pinned objects than a kind may have.
        """
        self._context = contextvars.copy_context()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for kind in self.kinds.values():
                    kind.pinned = frozenset(check_id(id_) for id_ in kind.cls.pinned())
                    for id_ in kind.pinned:
                        self.live(kind, id_)
                nursery.start_soon(self.alarms.run)
                task_status.started()
                await self._look_after_idle()
            finally:
                self._nursery = None
                self._looks.clear()

    def get(self, kind: str | type[DurableObject], id: str) -> Reference:
        """A reference to an object; it need not live, and does not by this.

        Raises:
            UnknownKind: this kind is not served here.
            InvalidName: the id breaks the naming rules.
        """
        name = kind if isinstance(kind, str) else kind.kind
        known = self.kinds.get(name)
        if known is None or not (isinstance(kind, str) or issubclass(known.cls, kind)):
            raise UnknownKind(name, tuple(self.kinds))
        return Reference(self, known, check_id(id))

    def live(self, kind: Kind, id: str) -> Host:
        """The live object, started if need be. Never waits.

        Raises:
            SwarmClosed: the directory does not run (any more).
            UnknownObject: the kind says there is no such object.
            TooManyObjects: it would be one too many.
            ObjectFailed: it crashed too often and waits for its breaker.
        """
        host = kind.hosts.get(id)
        if host is not None:
            if host.state == "failed":
                raise host.failure()
            return host
        if self._nursery is None:
            raise SwarmClosed
        if not kind.cls.exists(id):
            raise UnknownObject(kind.name, id)
        if len(kind.hosts) >= kind.limit:
            raise TooManyObjects(kind.name, kind.limit)
        host = kind.hosts[id] = Host(self, kind, id)
        # In the directory's context: whoever happens to come first lends the object nothing.
        self._context.run(partial(self._nursery.start_soon, host.run, name=host.name))
        return host

    async def recall(self, kind: Kind, id: str, stream: Stream) -> None:
        """Have the durable history of an object that begins in its stream, if it is not there.

        Raises:
            StorageError: it cannot be read.
        """
        if stream.recalled:
            return
        history = await self.storage.history((kind.name, id))
        stream.recall(history, self._age_of)
        if history is not None and trio.current_time() < self._recalls_until:
            self._remember((kind.name, id), history.messages)

    async def look_back(self, kind: Kind, id: str) -> Journal | None:
        """The journal of an object, live or not, to be read at once; None where nothing is kept.

        Without one in memory it is made from the durable history, and kept by nobody.

        Raises:
            StorageError: the history cannot be read.
        """
        name = f"{kind.name}/{id}"
        stream = self.streams.get(name)
        if stream is not None and stream.recalled:
            await trio.lowlevel.checkpoint()
            return stream.journal
        history = await self.storage.history((kind.name, id))
        stream = self.streams.get(name)
        if stream is not None and stream.recalled:
            return stream.journal  # it began meanwhile, and knows more
        if history is None:
            return None
        journal = Journal(
            start=self.clock.next(),
            settings=kind.journal,
            topics_limit=self.settings.limits.topics_per_journal,
            keys_limit=self.settings.limits.keys_per_journal,
            latest=kind.latest,
        )
        journal.restore(history, trio.current_time(), self._age_of)
        return journal

    def known(self, key: PublishKey) -> Published | None:
        """What was published under a message id lately, in this process or right before the last one ended."""
        return self.published.get(key) or self.kept_messages.get(key)

    def _remember(self, owner: Owner, messages: Sequence[KeptMessage]) -> None:
        """Know the publications again that the last process may not have answered."""
        mark_ms = self.clock.mark_ms  # it ended in the ten seconds before this
        since_ms = mark_ms - RESERVE_MS - round(RECALLED_S * 1000)
        for message in messages:
            if since_ms <= message.id.ms <= mark_ms:
                self.kept_messages[*owner, message.message] = Published(message.id, message.count)

    def _age_of(self, id: EventId) -> float:
        return max(0, self.clock.now_ms() - id.ms) / 1000

    def bury(self, host: Host) -> None:
        """An object is gone: forget it. Its journal stays for those who come back."""
        del host.kind.hosts[host.id]
        host.kind.past.bury(host)
        self._turns += host.turns
        self.streams.release(host.name)

    def next_incarnation(self) -> int:
        """A number that rises with every life in this process."""
        return next(self._incarnations)

    # Idle objects

    def watch_idle(self, host: Host) -> None:
        """Look at this object when its grace ends. One that is on the list already is looked at in time."""
        if not host.due_listed:
            host.due_listed = True
            heapq.heappush(self._looks, (host.idle_at(), next(self._look_order), host))
            self._looks_changed.set()

    async def _look_after_idle(self) -> None:
        grace_s = self.settings.objects.grace_s
        while True:
            self._looks_changed = trio.Event()
            if not self._looks:
                await self._looks_changed.wait()
                continue
            due = self._looks[0][0]
            if trio.current_time() < due:
                with trio.move_on_at(due):
                    await self._looks_changed.wait()
                continue
            _, _, host = heapq.heappop(self._looks)
            host.due_listed = False
            life = host.life
            if host.state != "running" or life is None or host.pinned or host.stream.subscribers:
                continue  # it is listed again when that changes
            now = trio.current_time()
            if host.idle_long_enough():
                life.check_idle = True
                host.mailbox.wake()
            at = host.idle_at()
            host.due_listed = True
            heapq.heappush(self._looks, (at if at > now else now + grace_s, next(self._look_order), host))

    # What there is

    def statistics(self) -> DirectoryStatistics:
        """A moment of the directory."""
        objects: dict[str, dict[str, int]] = {}
        for kind in self.kinds.values():
            states: dict[str, int] = {}
            for host in kind.hosts.values():
                states[host.state] = states.get(host.state, 0) + 1
            objects[kind.name] = states
        turns = self._turns + sum(host.turns for host in self.hosts())
        return DirectoryStatistics(objects, len(self.published), turns, tuple(self._feeds()))

    def _feeds(self) -> Iterator[FeedLook]:
        for host in self.hosts():
            for task in () if host.life is None else tuple(host.life.tasks):
                if task.kind == "feed":
                    told = None if task.statistics is None else task.statistics()
                    yield FeedLook(host.name, task.name, task.state, told)

    def kind_statistics(self) -> tuple[KindStatistics, ...]:
        """A moment of each kind."""
        return tuple(look_at_kind(kind) for kind in self.kinds.values())

    def tree(self) -> dict[str, Any]:
        """Kinds, their objects, and what hangs on each, as plain data."""
        return {kind.name: {id_: host.tree() for id_, host in kind.hosts.items()} for kind in self.kinds.values()}

    def hosts(self) -> list[Host]:
        """All live objects."""
        return [host for kind in self.kinds.values() for host in kind.hosts.values()]
