"""What a journal knows of each of its topics: where its events lie, and what of it is forgotten.

A topic holds the places of its kept events, not the events. Its *mark* is the newest of its events whose loss a
reader can notice. A topic without kept events is worth only its mark, and client-made names must not grow without a
bound, so beyond the limit such topics are dropped and their marks fold into one *floor*: what is not in the table
may have lost anything up to it.
"""

from itertools import islice

import attrs

from trio_swarm.journal.event import START, EventId

_SLACK = 64  # forgotten places that are kept at the front of a list before it is moved together


@attrs.define(eq=False)
class Topic:
    """One topic.

    Attributes:
        latest: only the newest event of each key counts.
        count: events ever appended, which is the newest offset.
        mark: the seq of the newest event of it that is gone without a newer one in its place; 0 when none is.
        mark_id: that event's id; where none is gone, the id up to which those of another life may be.
        seqs: the kept events, rising, behind `first` places of forgotten ones; empty when none is kept.
        sums: beside each of `seqs`, the topic's bytes before it, and last all its bytes ever.
        first: where the kept ones begin.
    """

    latest: bool
    mark: int
    mark_id: EventId
    count: int = 0
    seqs: list[int] = attrs.Factory(list)
    sums: list[int] = attrs.Factory(lambda: [0])
    first: int = 0

    def forget_first(self) -> bool:
        """Drop the place of the oldest kept event; True when it was the last one."""
        self.first = first = self.first + 1
        if first == len(self.seqs):
            self.seqs.clear()
            del self.sums[:first]
            self.first = 0
            return True
        if first >= _SLACK and first * 2 >= len(self.seqs):
            del self.seqs[:first]
            del self.sums[:first]
            self.first = 0
        return False


class Topics(dict[str, Topic]):
    """The table of topics. `empty` are those without a kept event, the longest empty (so the lowest mark) first.

    `start`: before this id of another life everything may be gone.
    """

    def __init__(self, limit: int, start: EventId = START) -> None:
        super().__init__()
        self.limit = limit
        self.bulk = max(1, limit // 10)  # a fold makes fan-out walk its quiet readers: not for every new name
        self.empty: dict[str, Topic] = {}
        self.floor = 0
        self.floor_id = start

    def fold(self) -> None:
        """Drop the longest empty topics: their marks go into the floor."""
        for name in list(islice(self.empty, self.bulk)):
            topic = self.pop(name)
            del self.empty[name]
            self.floor = max(self.floor, topic.mark)
            self.floor_id = max(self.floor_id, topic.mark_id)

    def mark_of(self, wanted: frozenset[str]) -> tuple[int, EventId]:
        """The highest mark among these topics: nothing of them above it is lost."""
        mark, mark_id = 0, START if wanted else self.floor_id
        for name in wanted:
            topic = self.get(name)
            seq, id_ = (self.floor, self.floor_id) if topic is None else (topic.mark, topic.mark_id)
            mark = max(mark, seq)
            mark_id = max(mark_id, id_)
        return mark, mark_id
