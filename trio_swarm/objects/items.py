"""The kinds of turns: what each does, and (`settle`) where its outcome goes once the gate lets it out."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import structlog

from trio_swarm.errors import ObjectRestarted, SwarmClosed
from trio_swarm.journal.event import Draft, EventId
from trio_swarm.objects.drafts import encode_json
from trio_swarm.objects.mailbox import CALL, CONTROL, FEED, Item
from trio_swarm.objects.turn import CURRENT

if TYPE_CHECKING:
    from trio_swarm.fanout.snapshots import SnapshotBatch
    from trio_swarm.fanout.stream import Demand, Stream
    from trio_swarm.objects.durable import DurableObject
    from trio_swarm.objects.host import Host
    from trio_swarm.objects.methods import Method

_ASKED_AGAIN = (ObjectRestarted, SwarmClosed)  # the next life, if there is one, does it

_log = structlog.get_logger("trio_swarm.objects")


@attrs.frozen
class Published:
    """What publishing answers: the id of the last event, and how many there were."""

    id: EventId
    count: int


class Call(Item):
    """A method, called by who waits for the answer."""

    __slots__ = ("_args", "_kwargs", "_method")

    lane = CALL

    def __init__(self, method: "Method", args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        self._method = method
        self._args = args
        self._kwargs = kwargs

    @property
    def title(self) -> str:
        """The method."""
        return f"{self._method.name}()"

    def begin(self, instance: "DurableObject") -> Awaitable[Any]:
        """Call it."""
        return self._method.function(instance, *self._args, **self._kwargs)


class OutsideCall(Call):
    """A call from outside: its answer is encoded in its turn, so that one without JSON is the turn's failure.

    Its value is a `msgspec.Raw`.
    """

    __slots__ = ()

    async def begin(self, instance: "DurableObject") -> msgspec.Raw:
        """Call it, and encode the answer while the turn can still be undone."""
        return msgspec.Raw(encode_json(await self._method.function(instance, *self._args, **self._kwargs)))


class Errand(Call):
    """A call that nobody waits for; an exception is logged."""

    __slots__ = ("_stream",)

    def __init__(self, method: "Method", args: Sequence[Any], kwargs: Mapping[str, Any], stream: str) -> None:
        super().__init__(method, args, kwargs)
        self._stream = stream

    def settle(self, value: Any, error: Exception | None = None) -> None:
        """Log what nobody else will see."""
        if error is not None and not self.settled:
            _log.error("call_failed", object=self._stream, method=self.title.removesuffix("()"), exc_info=error)
        super().settle(value, error)


class Publish(Item):
    """Events from outside: one turn, all or none.

    Args:
        drafts: the events.
        message_id: by which a repeat is known, if it has one.
        known: what was published under that id already, asked when the turn begins: the object's history may tell.
        settled: told the outcome when it is certain, None when nothing was published; once.
    """

    __slots__ = ("_begun", "_drafts", "_known", "_settled", "message_id")

    lane = CALL
    title = "publish"

    def __init__(
        self,
        drafts: Sequence[Draft],
        message_id: str | None = None,
        known: Callable[[], Published | None] | None = None,
        settled: Callable[[Published | None], None] | None = None,
    ) -> None:
        super().__init__()
        self.message_id = message_id
        self._drafts = drafts
        self._known = known
        self._settled = settled
        self._begun = False

    async def begin(self, instance: "DurableObject") -> Published | None:  # noqa: ARG002
        """Publish into this turn, or answer what a repeat is answered."""
        self._begun = True
        known = None if self._known is None else self._known()
        turn = CURRENT.get()
        if turn is not None and known is None:
            turn.drafts.extend(self._drafts)
        return known

    def conclude(self, stamped: Sequence[tuple[EventId, Draft]]) -> Published:
        """The answer carries ids, which the end of the turn gives."""
        return Published(stamped[-1][0], len(stamped))

    def settle(self, value: Any, error: Exception | None = None) -> None:
        """Remember it for a repeat, whoever still waits."""
        self._tell(value if error is None else None)
        super().settle(value, error)

    def withdraw(self) -> None:
        """It will not take place, unless it has begun."""
        super().withdraw()
        if not self._begun:
            self._tell(None)

    def _tell(self, result: Published | None) -> None:
        tell, self._settled = self._settled, None
        if tell is not None:
            tell(result)


class Message(Item):
    """A message of a feed."""

    __slots__ = ("_feed", "_message")

    lane = FEED
    crashes = True
    wanted = False
    active = False

    def __init__(self, feed: str, message: Any) -> None:
        super().__init__()
        self._feed = feed
        self._message = message

    @property
    def title(self) -> str:
        """Which feed's."""
        return f"on_message({self._feed})"

    def begin(self, instance: "DurableObject") -> Awaitable[None]:
        """Hand it to the author."""
        return instance.on_message(self._feed, self._message)


class Start(Item):
    """The first turn of a life. It is sent by nobody."""

    __slots__ = ()

    crashes = True
    title = "start()"

    def begin(self, instance: "DurableObject") -> Awaitable[None]:
        """The author's start."""
        return instance.start()


class Stop(Item):
    """The last turn of a life. It is sent by nobody."""

    __slots__ = ()

    title = "stop()"

    def begin(self, instance: "DurableObject") -> Awaitable[None]:
        """The author's stop."""
        return instance.stop()


class Snapshot(Item):
    """The object's state for the readers that wait as the turn begins."""

    __slots__ = ("_batch", "_host")

    lane = CONTROL
    read_only = True
    active = False
    title = "snapshot()"

    def __init__(self, host: "Host") -> None:
        super().__init__()
        self._host = host
        self._batch: SnapshotBatch | None = None

    async def begin(self, instance: "DurableObject") -> bytes:
        """Take the readers, and the state, encoded once for all."""
        self._host.snapshot_asked = False
        self._batch = self._host.stream.take_waiters()
        return encode_json(await instance.snapshot())

    def settle(self, value: Any, error: Exception | None = None) -> None:
        """Hand the state to the readers, behind all events of the turns before."""
        stream, batch = self._host.stream, self._batch
        self._batch = None  # an error's traceback leads here: its readers are not to stay with it
        if batch is not None and not self.settled:
            if error is None:
                stream.give_snapshot(batch, value)
            elif not isinstance(error, _ASKED_AGAIN):
                _log.error("snapshot_failed", object=self._host.name, exc_info=error)
                stream.snapshot_failed(batch, type(error).__name__)
        super().settle(value, error)


class DemandChange(Item):
    """The newest demand, if it is not what the object was told last."""

    __slots__ = ("_host",)

    lane = CONTROL
    active = False
    title = "on_demand()"

    def __init__(self, host: "Host") -> None:
        super().__init__()
        self._host = host

    async def begin(self, instance: "DurableObject") -> None:
        """Tell the author."""
        self._host.demand_asked = False
        demand: Demand = self._host.stream.demand
        if demand != self._host.demand_told:
            self._host.demand_told = demand
            await instance.on_demand(demand)

    def settle(self, value: Any, error: Exception | None = None) -> None:
        """Log what nobody else will see."""
        if error is not None and not isinstance(error, _ASKED_AGAIN):
            _log.error("on_demand_failed", object=self._host.name, exc_info=error)
        super().settle(value, error)


class StatusChange(Item):
    """A feed's state on its way to the readers: no turn, but it leaves through the gate."""

    __slots__ = ("_feed", "_reason", "_state", "_stream")

    title = "status"

    def __init__(self, stream: "Stream", feed: str, state: str, reason: str | None) -> None:
        super().__init__()
        self._stream = stream
        self._feed = feed
        self._state = state
        self._reason = reason

    def settle(self, value: Any, error: Exception | None = None) -> None:
        """Tell the readers."""
        if error is None:
            self._stream.status(self._feed, self._state, self._reason)
        super().settle(value, error)
