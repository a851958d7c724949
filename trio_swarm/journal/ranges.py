"""Where ranges end: cuts that are fixed in the journal, so that readers share what is encoded.

A reader far behind is served in ranges of about 64 KiB, each encoded once for all who stand at the same place. If
ranges were counted from where a reader happens to stand, readers a few events apart would never share one. So lay
all bytes ever appended, of the topics asked, on a ruler, and cut before each event whose last byte falls into
another 64 KiB than that of the event before it, and on both sides of an event larger than that. Readers that begin
anywhere meet at the next cut.

Byte sums stand beside the places of events: `sums[i]` are the bytes before the event at place i, `sums[i + 1]`
those up to and including it. So a cut is found by bisection, and for the reader near the head by one comparison.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable

from trio_swarm.journal.topics import Topic


def cut(sums: list[int], first: int, limit: int, shift: int = 0) -> int:
    """The place after the range that begins at place `first`; the sums lie `shift` lower than the ruler."""
    after = sums[first + 1]
    if after - sums[first] > limit:
        return first + 1
    end = ((after + shift) // limit + 1) * limit - shift
    return len(sums) - 1 if sums[-1] < end else bisect_left(sums, end, first + 1) - 1


def choose(topics: Iterable[Topic], position: int, limit: int, size_of: Callable[[int], int]) -> tuple[list[int], bool]:
    """The seqs of the next range of these topics after `position`, and whether nothing of them is left behind it."""
    before = 0  # the bytes of all these topics up to the position
    behind: list[tuple[Topic, int]] = []  # those with news, and the place where it begins
    for topic in topics:
        seqs = topic.seqs
        place = len(seqs)
        if place and seqs[-1] > position:
            place -= 1
            if place > topic.first and seqs[place - 1] > position:  # seldom: most readers are one event behind
                place = bisect_right(seqs, position, topic.first, place)
            behind.append((topic, place))
        before += topic.sums[place]
    if not behind:
        return [], True
    if len(behind) > 1:
        return _merge(behind, before, limit, size_of)
    topic, place = behind[0]
    end = cut(topic.sums, place, limit, before - topic.sums[place])
    return topic.seqs[place:end], end == len(topic.seqs)


def _merge(
    behind: list[tuple[Topic, int]], before: int, limit: int, size_of: Callable[[int], int]
) -> tuple[list[int], bool]:
    first = min(topic.seqs[place] for topic, place in behind)
    size = size_of(first)
    if size > limit:
        return [first], False
    end = ((before + size) // limit + 1) * limit
    candidates: list[int] = []
    for topic, place in behind:
        # with the first event that a topic's own bytes bring past the end: the range is cut there, if not before
        stop = bisect_left(topic.sums, end - before + topic.sums[place], place + 1) - 1
        candidates += topic.seqs[place : stop + 1]
    candidates.sort()
    for place, seq in enumerate(candidates):
        before += size_of(seq)
        if before >= end:
            return candidates[:place], False
    return candidates, True
