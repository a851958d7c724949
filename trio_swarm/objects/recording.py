"""Which events of a turn are durable, and what storage must be told with them.

A topic is durable when its class says so, or from the first event on that is published with `durable=True`: that event
and all after it in this topic are kept, in the order of their ids, for only so can a later journal answer for the topic
as a whole. Of the other topics it must know whether there is anything to lose. So the first event that is not durable,
in an object that has a history, waits for a note of it in storage; those after it wait for nothing.

One recorder an incarnation. What it told storage and is not confirmed lives and dies with it; what is confirmed stands
in the stream's `Durability`, which outlives it.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from trio_swarm.journal.event import Draft, EventId
from trio_swarm.journal.history import KeptMessage
from trio_swarm.settings import JournalSettings
from trio_swarm.storage import Record

if TYPE_CHECKING:
    from trio_swarm.fanout.stream import Stream

Stamped = Sequence[tuple[EventId, Draft]]


class Recorder:
    """See the module.

    Args:
        stream: of the object; its history is recalled.
        keep: how much history is kept.
        durable: says of a topic whether the class has it durable; None: of none.
        latest: says of a topic whether only the newest event of each key counts.
        limit: durable topics at once.
        waiting: all events that wait for a commit, in order.
    """

    __slots__ = ("_begun", "_durable", "_ended", "_keep", "_latest", "_limit", "_stream", "_told", "_waiting")

    def __init__(
        self,
        stream: "Stream",
        *,
        keep: JournalSettings,
        durable: Callable[[str], bool] | None,
        latest: Callable[[str], bool],
        limit: int,
        waiting: Callable[[], Iterable[tuple[EventId, Draft]]],
    ) -> None:
        self._stream = stream
        self._keep = keep
        self._durable = durable
        self._latest = latest
        self._limit = limit
        self._waiting = waiting
        self._begun: dict[str, EventId] = {}  # topics that became durable and are not confirmed, with their marks
        self._ended: set[str] = set()  # topics that are to be durable no longer, not confirmed
        self._told = stream.durability.told

    def record(self, stamped: Stamped, message: str | None = None) -> Record | None:
        """What storage must be told of a turn's events; None where it need not know of them."""
        durability = self._stream.durability
        named = {draft.topic for _, draft in stamped if draft.durable}
        if self._durable is not None:
            named.update(draft.topic for _, draft in stamped if self._durable(draft.topic))
        if not named and self._told is None:  # there is no history, and this begins none
            durability.lossy = True
            return None
        for topic in named:
            if not self._is_durable(topic):
                self._begun[topic] = self._newest_id(topic)
        events = [(id_, draft) for id_, draft in stamped if self._is_durable(draft.topic)]
        durability.lossy = durability.lossy or len(events) < len(stamped)
        losses = durability.losses
        if not events and losses == self._told:
            return None
        topics = {draft.topic for _, draft in events}
        record = Record(
            events,
            self._keep,
            begun={topic: self._begun[topic] for topic in topics if topic in self._begun},
            ended=self._too_many(topics),
            losses=None if losses == self._told else losses,
            lossy=losses.lossy,
            latest=frozenset(filter(self._latest, topics)),
            message=None if message is None or not events else KeptMessage(message, stamped[-1][0], len(stamped)),
        )
        self._told = losses
        self._ended |= record.ended
        return record

    def confirmed(self, record: Record) -> None:
        """Storage holds it."""
        durability = self._stream.durability
        durability.topics -= record.ended
        self._ended -= record.ended
        for topic in record.begun:
            durability.topics.add(topic)
            self._begun.pop(topic, None)
        durability.told = record.losses or durability.told

    def _is_durable(self, topic: str) -> bool:
        return topic in self._begun or (topic in self._stream.durability.topics and topic not in self._ended)

    def _newest_id(self, topic: str) -> EventId:
        """The id up to which the topic had events that are not kept."""
        newest = self._stream.journal.newest_id(topic)
        return max((id_ for id_, draft in self._waiting() if draft.topic == topic), default=newest)

    def _too_many(self, topics: set[str]) -> frozenset[str]:
        """Names come from clients: of too many, some that have no event in the journal are durable no longer."""
        known = self._stream.durability.topics
        over = len(known) + len(self._begun) - len(self._ended) - self._limit
        if over <= 0:
            return frozenset()
        knows = self._stream.journal.knows
        kept = topics | self._ended | self._begun.keys()
        quiet = (topic for topic in known if topic not in kept and not knows(topic))
        return frozenset(islice(quiet, max(over, self._limit // 10)))
