"""The durable part of a journal's history: what a later journal of the same object begins with. Pure.

Only topics that are *durable* outlive the process. Of all others a later journal knows no events, and must know from
when on that is a loss: everything up to the `floor` may be gone, and, where events of such topics were published after
it (`lossy`), everything up to the beginning of the later journal.
"""

from collections.abc import Mapping, Sequence

import attrs

from trio_swarm.journal.event import Draft, EventId


@attrs.frozen
class Losses:
    """Of topics that are not durable: everything up to `floor` may be gone; and later ones, too, if `lossy`."""

    floor: EventId
    lossy: bool


@attrs.frozen
class KeptTopic:
    """A durable topic: how many events it ever had, and the id up to which they may be gone."""

    count: int
    mark: EventId


@attrs.frozen
class KeptMessage:
    """A publication that is known by its message id: the id of its last event, and how many events there were."""

    message: str
    id: EventId
    count: int


@attrs.frozen
class History:
    """The durable history of one object: its topics, their kept events and late publications, in the order of ids."""

    losses: Losses
    topics: Mapping[str, KeptTopic]
    events: Sequence[tuple[EventId, Draft]]
    messages: Sequence[KeptMessage]


class Durability:
    """What of a journal is durable, as far as storage has confirmed it.

    Attributes:
        topics: the durable ones.
        told: what storage knows of losses; None where it has no history of this object.
        floor: what is to be told: up to here events of other topics may be gone.
        lossy: whether events of other topics have been published since.
    """

    __slots__ = ("floor", "lossy", "told", "topics")

    def __init__(self, start: EventId, history: History | None = None) -> None:
        self.topics: set[str] = set() if history is None else set(history.topics)
        self.told = None if history is None else history.losses
        self.floor = start if history is None or history.losses.lossy else history.losses.floor
        self.lossy = False

    @property
    def losses(self) -> Losses:
        """What is to be told."""
        return Losses(self.floor, self.lossy)
