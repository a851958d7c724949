"""What authors write: a subclass of `DurableObject`, one instance a live thing.

    class Game(DurableObject):
        async def start(self):
            self.score = await self.storage.get("score", [0, 0])
            self.every(30, self.refresh)
            self.feed(OddsFeed(self.id))

        async def on_message(self, feed, message):
            self.storage.put("score", message["score"])
            self.publish("score", message["score"])

        @exposed
        async def goal(self, team: int) -> list[int]: ...

Everything runs in *turns*, one at a time: `start`, each message of a feed, each tick of a timer, each alarm, each call,
`snapshot`, `on_demand`, `stop`. A turn is a transaction: what it stores, publishes and answers becomes visible
together, after the commit, or not at all. Timers, feeds and background tasks live in the object's nursery and end with
it; alarms stand in storage, and outlive the process.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from trio_swarm.fanout.stream import Demand
from trio_swarm.fanout.subscription import LagPolicy
from trio_swarm.objects.drafts import make_draft
from trio_swarm.objects.moments import due_at
from trio_swarm.objects.store import ObjectStorage, check_key, encode_value
from trio_swarm.objects.timers import TaskHandle, tick_every, tick_once
from trio_swarm.objects.turn import open_turn
from trio_swarm.settings import JournalSettings
from trio_swarm.storage import Alarm

if TYPE_CHECKING:
    from trio_swarm.objects.directory import Directory
    from trio_swarm.objects.incarnation import Incarnation
    from trio_swarm.objects.reference import Reference

Fn = Callable[[], Awaitable[Any]]
Deliver = Callable[[Any], Awaitable[None]]
Status = Callable[[str, str | None], None]
F = TypeVar("F", bound=Callable[..., Any])

EXPOSED = "__trio_swarm_exposed__"  # the mark on a method


def exposed(function: F) -> F:
    """Let a method be called from outside (HTTP, WebSocket); everything else can be called in this process only.

    Raises:
        TypeError: not an async function, or a private name.
    """
    name = getattr(function, "__name__", repr(function))
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"@exposed wants an async method: not `def {name}`, but `async def {name}`")
    if name.startswith("_"):
        raise TypeError(f"@exposed wants a public name: not `{name}`, but `{name.lstrip('_')}`")
    setattr(function, EXPOSED, True)
    return function


class Feed(Protocol):
    """An upstream, as an object sees it. `trio_swarm.upstream` has them; anything of this shape will do."""

    @property
    def name(self) -> str:
        """What `on_message` and the `status` event call it."""

    async def run(self, deliver: Deliver, status: Status) -> None:
        """Receive until cancelled, supervising itself: faults of the connection never leave here.

        Args:
            deliver: gives one message to the object; waits while the object's feed lane is full, so that not reading
                carries the backpressure down to TCP. It returns when the message is in the lane, before its turn, and
                is no checkpoint while there is room.
            status: `("connecting" | "live" | "down", reason)`, told to the object's readers. Never waits.
        """


class DurableObject:
    """The base of all objects; see the module. Instances are made by the runtime, without arguments.

    Attributes:
        kind: the name of the class in URLs; the class's name in lower case unless given.
        publishable: whether clients may publish events into it.
        journal: how much history its stream keeps; None: as the settings say.
        lag_policy: what a reader gets that fell off the journal; None: `snapshot` where the class has one, else `skip`.
        latest: topics of which only the newest event of each key matters; `"*"` means all.
        durable: topics whose events are kept in storage and outlive a restart; `"*"` means all.
        id: which one of its kind this is.
        storage: its keys and values; see `ObjectStorage`.
        swarm: the other objects: `self.swarm.get(Kind, id)`.
    """

    kind: ClassVar[str] = "durableobject"
    publishable: ClassVar[bool] = False
    journal: ClassVar[JournalSettings | None] = None
    lag_policy: ClassVar[LagPolicy | None] = None
    latest: ClassVar[AbstractSet[str]] = frozenset()
    durable: ClassVar[AbstractSet[str]] = frozenset()

    id: str
    storage: ObjectStorage
    swarm: "Directory"
    _life: "Incarnation"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" not in cls.__dict__:
            cls.kind = cls.__name__.lower()

    # What the author may override

    @classmethod
    def exists(cls, id: str) -> bool:  # noqa: ARG003 - an author's override reads it
        """Whether there is such an object; asked before one starts. False: callers get `UnknownObject`."""
        return True

    @classmethod
    def pinned(cls) -> Sequence[str]:
        """The ids that start with the runtime and never go idle."""
        return ()

    async def start(self) -> None:
        """The first turn of every life: read the storage, set the timers, open the feeds. Raising is a crash."""

    async def stop(self) -> None:
        """The last turn of every life that started, when timers, feeds and tasks have ended. It has 2 s.

        At an orderly end (idle, or the runtime's) it may store and publish. After a crash or a restart it only lets go
        of what it holds: what it stores and publishes then is dropped, for the attributes may be in any state.
        """

    async def on_message(self, feed: str, message: Any) -> None:
        """A turn for each message of a feed. Raising is a crash: undecodable input belongs to the feed."""

    async def snapshot(self) -> Any:
        """The present state as JSON, for readers who begin or fell behind. A turn that may only read."""

    async def on_alarm(self, key: str, data: Any, attempt: int) -> None:
        """A turn for an alarm that is due. It is at least once: the same one comes again after a crash in between.

        Raising is no crash: the turn is undone, and the alarm comes again after 2 s, 4 s and so on; `attempt` counts
        from 1. When the seventh raises, it is given up, with an event of type `alarm_failed` (its key and attempts).
        What ends well takes the alarm away, unless the turn has set it anew. An alarm that is due while `exists` says
        no comes again an hour later; that uses an attempt, too, and the last one gives it up.
        """
        raise NotImplementedError(f"{self.kind} has no on_alarm")

    async def on_demand(self, demand: Demand) -> None:
        """A turn when the topics that readers name, or how many readers there are, changed; told the newest only."""

    # What the author may call, in a turn

    def publish(
        self,
        topic: str,
        data: Any,
        *,
        type: str = "message",
        key: str | None = None,
        durable: bool = False,
    ) -> None:
        """Publish an event: readers see it after the commit of this turn.

        Args:
            topic: a label in this object's stream; `""` for none.
            data: anything that msgspec writes as JSON; `msgspec.Raw` passes bytes of JSON through.
            type: the event's type, as SSE's `event`.
            key: on `latest` topics, what this is the newest value of.
            durable: keep it in storage with the turn, and from now on all events of this topic: after a restart
                `since` is answered from them. They are kept as long as the class's journal keeps events.

        Raises:
            RuntimeError: outside of a turn of this object.
            InvalidName: the topic, type or key breaks the naming rules.
            TypeError: the data has no JSON.
        """
        turn = open_turn(self, "publish")
        turn.drafts.append(make_draft(topic, data, type, key, durable=durable, raw=False))

    def publish_raw(
        self,
        topic: str,
        data: bytes,
        *,
        type: str = "message",
        key: str | None = None,
        durable: bool = False,
    ) -> None:
        """Publish bytes that are JSON already, unchanged and unread; else as `publish`."""
        turn = open_turn(self, "publish_raw")
        turn.drafts.append(make_draft(topic, data, type, key, durable=durable, raw=True))

    def set_alarm(
        self, key: str, *, at: datetime | float | None = None, after: float | None = None, data: Any = None
    ) -> None:
        """Have `on_alarm` called at a time, also if the process ends meanwhile. It is part of the turn.

        There is one alarm a key: setting it again replaces it. What fell due while no process ran rings after the
        start, spread over some seconds. An idle object is started for it.

        Args:
            key: which alarm, 1 to 512 bytes.
            at: a moment on the wall clock: a datetime with a time zone, or seconds since 1970. A past one is due now.
            after: seconds from now. Give this or `at`.
            data: anything that msgspec writes as MessagePack, at most 128 KiB; it comes back as plain data.

        Raises:
            RuntimeError: outside of a turn of this object.
            ValueError: neither `at` nor `after`, or both; no time zone; not a moment.
            TypeError: the class has no `on_alarm`, or the data cannot be encoded.
            StorageError, TooLarge: the key or the data is not what it may be.
        """
        turn = open_turn(self, "set_alarm")
        if type(self).on_alarm is DurableObject.on_alarm:
            raise TypeError(f"{self.kind} sets an alarm and takes none: give it an `async def on_alarm`")
        due_ms = due_at(at, after, self.swarm.clock.now_ms())
        turn.alarms[check_key(key)] = Alarm(due_ms, encode_value(key, data))

    def delete_alarm(self, key: str) -> None:
        """Take an alarm back; one that is not set is no error. It is part of the turn."""
        open_turn(self, "delete_alarm").alarms[check_key(key)] = None

    def every(self, seconds: float, fn: Fn) -> TaskHandle:
        """Run an async function as a turn every so many seconds, the first time after that long.

        A tick waits for its own turn to end, and ticks missed meanwhile are skipped: they neither overlap nor pile up.
        Raising in one is a crash.
        """
        return self._begun("timers are set").begin_timer("every", seconds, fn, tick_every)

    def after(self, seconds: float, fn: Fn) -> TaskHandle:
        """Run an async function as a turn once, so many seconds from now. Raising is a crash."""
        return self._begun("timers are set").begin_timer("after", seconds, fn, tick_once)

    def feed(self, feed: Feed, *, pinned: bool = False) -> TaskHandle:
        """Receive from an upstream until cancelled or the object ends; each message is a turn of `on_message`.

        A `pinned` feed keeps the object alive without readers; any other ends with it when it goes idle.
        """
        return self._begun("feeds are opened").begin_feed(feed, pinned=pinned)

    def spawn(self, fn: Fn) -> TaskHandle:
        """Run an async function in the background, outside of turns: it changes the object by calling `self.reference`.

        Raising is a crash.
        """
        return self._begun("tasks are begun").begin_task(fn)

    def _begun(self, what: str) -> "Incarnation":
        life: Incarnation | None = getattr(self, "_life", None)
        if life is None:
            raise RuntimeError(f"{what} in start, not in __init__: the object does not live yet")
        return life

    @property
    def reference(self) -> "Reference":
        """What others use to reach this object; a background task takes its turns through it."""
        return self.swarm.get(self.kind, self.id)
