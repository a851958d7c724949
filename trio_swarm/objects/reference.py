"""A reference: what others use to reach an object, whether it lives at the moment or not.

    game = swarm.get(Game, "arsenal-chelsea")
    await game.goal(1)                               # a turn of the object; waits for its outcome
    async with game.watch("score", since=last) as events: ...

It holds no object and keeps none alive; each use finds the live one, or starts it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_swarm.errors import InvalidEvent, NotPublishable, UnknownMethod, UnknownObject
from trio_swarm.fanout.encoding import Encoding
from trio_swarm.fanout.reader import Reader
from trio_swarm.fanout.sink import Sink
from trio_swarm.fanout.subscription import Subscription
from trio_swarm.journal.event import START, Draft, Event, EventId
from trio_swarm.objects.drafts import check_draft
from trio_swarm.objects.items import Call, Errand, OutsideCall, Publish, Published
from trio_swarm.objects.turn import check_cycle, current_turn
from trio_swarm.wire.names import check_message_id, check_topic

if TYPE_CHECKING:
    from trio_swarm.objects.directory import Directory, Kind
    from trio_swarm.objects.host import Host, ObjectStatistics
    from trio_swarm.objects.mailbox import Item


class Reference:
    """See the module. Made by `Directory.get`.

    Any other attribute is a method of the object: `await reference.goal(1)` is `await reference.call("goal", (1,))`.
    A method whose name is taken here is reached by `call`.
    """

    __slots__ = ("_directory", "_kind", "id")

    def __init__(self, directory: "Directory", kind: "Kind", id: str) -> None:
        self._directory = directory
        self._kind = kind
        self.id = id

    @property
    def kind(self) -> str:
        """The name of its class in URLs."""
        return self._kind.name

    @property
    def stream_name(self) -> str:
        """The name of its stream: `kind/id`."""
        return f"{self._kind.name}/{self.id}"

    def __repr__(self) -> str:
        return f"<Reference {self.stream_name}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and (self._kind, self.id) == (other._kind, other.id)

    def __hash__(self) -> int:
        return hash((self._kind.name, self.id))

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            method = self._kind.methods.inside(name)
        except UnknownMethod as error:
            raise AttributeError("; ".join((str(error), *getattr(error, "__notes__", ())))) from None

        def call(*args: Any, **kwargs: Any) -> Awaitable[Any]:
            return self._ask(Call(method, args, kwargs))

        return call

    async def call(
        self, method: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *, outside: bool = False
    ) -> Any:
        """Call a method in a turn of the object, and wait for its answer.

        Cancelled before the turn, it never runs; once begun, the turn runs on and its answer is dropped. What the
        method raised is raised here.

        Args:
            method: its name.
            args: positional arguments.
            kwargs: keyword arguments.
            outside: only `@exposed` methods, and the arguments are checked against the signature first. The answer is
                a `msgspec.Raw`, encoded in the turn: one that has no JSON makes the turn fail, and nothing of it is
                kept.

        Raises:
            UnknownMethod: no such method, or not from here.
            InvalidArguments: from outside, with arguments that it does not take.
            CallCycle: made in a turn, it would wait for that very turn.
            TurnTimeout: the turn ran past its deadline.
            ObjectRestarted: the object restarted before the outcome was safe; nothing of the turn is kept.
            StorageError: the turn's changes were refused.
            UnknownObject, TooManyObjects, ObjectFailed, SwarmClosed: see `Directory.live`.
        """
        kwargs = kwargs or {}
        methods = self._kind.methods
        if outside:
            return await self._ask(OutsideCall(methods.outside(method, args, kwargs), args, kwargs))
        return await self._ask(Call(methods.inside(method), args, kwargs))

    def call_nowait(
        self, method: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *, outside: bool = False
    ) -> None:
        """Have a method called in a turn of the object, without waiting; what it raises is logged.

        Raises:
            trio.WouldBlock: too many wait already.
            UnknownMethod, InvalidArguments, UnknownObject, TooManyObjects, ObjectFailed, SwarmClosed: as `call`.
        """
        kwargs = kwargs or {}
        methods = self._kind.methods
        found = methods.outside(method, args, kwargs) if outside else methods.inside(method)
        self._live().mailbox.send_nowait(Errand(found, args, kwargs, self.stream_name))

    async def publish(self, drafts: Sequence[Draft], message_id: str | None = None) -> Published:
        """Publish events from outside: one turn, all or none.

        A `message_id` that came within the last 5 s is answered with the first id and not done again, also while the
        first is still under way; of durable events also if the process ended meanwhile. It holds within this object;
        who takes ids from clients must make them unique among clients first. Cancelling is as for `call`.

        Raises:
            NotPublishable: the kind takes no events from outside.
            InvalidEvent: there are none.
            InvalidName: a topic, type, key or the message id breaks the naming rules.
            CallCycle, ObjectRestarted, StorageError, UnknownObject, TooManyObjects, ObjectFailed, SwarmClosed: as
            `call`.
        """
        if not self._kind.cls.publishable:
            raise NotPublishable(self.kind)
        if not drafts:
            raise InvalidEvent("there is no event to publish")
        for draft in drafts:
            check_draft(draft)
        if message_id is not None:
            check_message_id(message_id)
        if message_id is None:
            return await self._ask(Publish(drafts))  # type: ignore[no-any-return]
        await trio.lowlevel.checkpoint_if_cancelled()
        directory = self._directory
        key = (self.kind, self.id, message_id)
        while True:
            known = directory.known(key)
            if known is not None:
                await trio.lowlevel.checkpoint()
                return known
            first = directory.publishing.get(key)
            if first is None:
                break
            await first.wait()  # if that one came to nothing, this one is done
        item = Publish(drafts, message_id, partial(directory.known, key), partial(_settled, directory, key))
        directory.publishing[key] = trio.Event()
        try:
            host = self._live()
        except BaseException:
            item.withdraw()
            raise
        return await self._ask_host(host, item)  # type: ignore[no-any-return]

    async def subscribe(
        self, sink: Sink, *, encoding: Encoding, topics: frozenset[str] | None = None, since: EventId | None = None
    ) -> Subscription:
        """Make a reader of its stream, held until `start()`; the object starts if it does not live.

        Cancelled, there is no subscription. Closing the subscription is the caller's business.

        Raises:
            UnknownObject, TooManyObjects, ObjectFailed, SwarmClosed: see `Directory.live`.
        """
        await trio.lowlevel.checkpoint()
        return self._live().stream.subscribe(sink, encoding=encoding, topics=topics, since=since)

    @asynccontextmanager
    async def watch(self, *topics: str, since: EventId | str | None = None) -> AsyncIterator[Reader]:
        """Read its events in this process: all topics, or those named, from `since` on or from now.

        Raises:
            InvalidPosition: `since` is not an event id.
            InvalidName: a topic breaks the naming rules.
            ReaderLagged: from the reader, where it was slower than the journal is long.
            CallCycle: made in a turn, opening it would wait for that very turn.
            UnknownObject, TooManyObjects, ObjectFailed, SwarmClosed: see `Directory.live`.
        """
        for topic in topics:
            if not isinstance(topic, str):
                raise TypeError(f"watch takes topics one by one: not `watch({topic!r})`, but `watch(*{topic!r})`")
            check_topic(topic)
        position = EventId.parse(since) if isinstance(since, str) else since
        await trio.lowlevel.checkpoint_if_cancelled()
        host = self._live()
        turn = current_turn()
        if turn is not None:
            check_cycle(turn, host)
        reader = Reader(host.stream, frozenset(topics) if topics else None, position)
        if turn is not None:
            turn.waits.append(host)
        try:
            await reader.__aenter__()
        finally:
            if turn is not None:
                turn.waits.remove(host)
        try:
            yield reader
        finally:
            reader.close()

    async def history(
        self, topics: Iterable[str] | None = None, since: EventId | str | None = None, limit: int = 100
    ) -> tuple[list[Event], bool]:
        """Kept events in ascending order, at most `limit`, and whether some after `since` are gone. Starts no object.

        Raises:
            TypeError: `topics` is one topic, not a collection of them.
            InvalidName: a topic breaks the naming rules.
            InvalidPosition: `since` is not an event id.
            UnknownObject: the kind says there is no such object.
            StorageError: its durable history cannot be read.
        """
        if isinstance(topics, str):
            raise TypeError(
                f"history takes a collection of topics: not `history({topics!r})`, but `history([{topics!r}])`"
            )
        wanted = None if topics is None else frozenset(check_topic(topic) for topic in topics)
        position = EventId.parse(since) if isinstance(since, str) else since
        stream = self._directory.streams.get(self.stream_name)
        if stream is None and not self._kind.cls.exists(self.id):
            raise UnknownObject(self.kind, self.id)
        journal = await self._directory.look_back(self._kind, self.id)
        if journal is None:
            return [], position is not None and position != START
        return journal.history(wanted, position, limit)

    def statistics(self) -> "ObjectStatistics | None":
        """A moment of the object; None while it does not live."""
        host = self._kind.hosts.get(self.id)
        return None if host is None else host.statistics()

    def _live(self) -> "Host":
        return self._directory.live(self._kind, self.id)

    async def _ask(self, item: "Item") -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()  # who is cancelled hears of that, and not that the swarm closes
        return await self._ask_host(self._live(), item)

    async def _ask_host(self, host: "Host", item: "Item") -> Any:
        turn = current_turn()
        if turn is None:
            return await host.mailbox.ask(item)
        try:
            check_cycle(turn, host)
        except BaseException:
            item.withdraw()
            raise
        turn.waits.append(host)
        try:
            return await host.mailbox.ask(item)
        finally:
            turn.waits.remove(host)


def _settled(directory: "Directory", key: tuple[str, str, str], result: Published | None) -> None:
    """A publication with a messageId has its outcome, or never will."""
    if result is not None:
        directory.published[key] = result
    event = directory.publishing.pop(key, None)
    if event is not None:
        event.set()
