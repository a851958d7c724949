"""The journal's guarantees, each in plain words and on a few events."""

import sys

import pytest

from trio_swarm.journal.event import START, Draft, EventId
from trio_swarm.journal.journal import Gap, Journal, Resumed
from trio_swarm.settings import JournalSettings

BEGIN = EventId(1000, 0)
ALL = None


def make(events=1000, max_bytes=10**6, age=300.0, **more):
    settings = JournalSettings(events=events, bytes=max_bytes, age_s=age)
    return Journal(start=BEGIN, settings=settings, **more)


def put(journal, topic="", data=b"1", key=None, now=0.0):
    return journal.append(EventId(1001 + journal.head, 0), Draft(data, topic, key=key), now)


def datas(found):
    return [event.data for event in found.events]


def only(*topics):
    return frozenset(topics)


def test_events_have_a_place_in_the_journal_and_in_their_topic():
    """seq counts the journal's events, offset the topic's."""
    journal = make()
    placed = [put(journal, topic) for topic in ("score", "odds", "score")]
    assert [(event.seq, event.offset) for event in placed] == [(1, 1), (2, 1), (3, 2)]
    assert (3, placed[2].id) == (journal.head, journal.head_id)


def test_ids_rise():
    """An id that is not above the newest is refused, and nothing is changed by it."""
    journal = make()
    put(journal)
    for bad in (journal.head_id, BEGIN, START):
        with pytest.raises(ValueError, match="event ids rise"):
            journal.append(bad, Draft(b"2"), 0.0)
    assert (journal.head, len(journal)) == (1, 1)


def test_a_reader_gets_what_it_has_not_had():
    """From any position: everything after it, of its topics, in order; then there is nothing new."""
    journal = make()
    for i in range(6):
        put(journal, "ab"[i % 2], b"%d" % i)
    assert datas(journal.read(0, ALL)) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert datas(journal.read(2, only("b"))) == [b"3", b"5"]
    assert datas(journal.read(4, only("a", "b", "c"))) == [b"4", b"5"]
    assert journal.has_new(4, only("b"))
    assert not journal.has_new(6, ALL)
    assert not journal.has_new(5, only("a"))


def test_a_quiet_topics_reader_moves_on_to_the_head():
    """Having looked and found nothing is having had all: the position is the head."""
    journal = make()
    put(journal, "busy")
    assert journal.read(0, only("quiet")).end == 1


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [({"events": 2}, [b"3", b"4"]), ({"max_bytes": 3 * 65}, [b"2", b"3", b"4"]), ({"age": 1.5}, [b"3", b"4"])],
)
def test_history_is_bounded(bounds, kept):
    """By events, by bytes (64 more than the data for each), and by age, whichever is met first."""
    journal = make(**bounds)
    for i in range(5):
        put(journal, data=b"%d" % i, now=float(i))
    assert kept == datas(journal.read(0, ALL))
    assert 65 * len(kept) == journal.bytes


def test_an_event_larger_than_the_journal_is_still_delivered():
    """The newest event stays until the next one comes, whatever its size."""
    journal = make(max_bytes=100)
    put(journal)
    put(journal, data=b"x" * 5000)
    assert datas(journal.read(0, ALL)) == [b"x" * 5000]
    put(journal, data=b"2")
    assert datas(journal.read(0, ALL)) == [b"2"]


def test_age_forgets_without_news():
    """`expire` empties a journal in which nothing happens any more; its head stays."""
    journal = make(age=10.0)
    put(journal, now=0.0)
    journal.expire(10.0)
    assert len(journal) == 1
    journal.expire(10.1)
    assert (len(journal), journal.bytes, journal.head) == (0, 0, 1)
    assert not journal.has_new(0, ALL)
    assert journal.lost(0, ALL)
    assert not journal.lost(1, ALL)
    assert Resumed(1, journal.head_id) == journal.resume(journal.head_id, ALL)


def test_a_busy_topic_is_no_gap_for_a_quiet_one():
    """A flood that pushes everything else out costs its own readers events, and the others nothing."""
    journal = make(events=10)
    put(journal, "quiet", b"q")
    here = journal.head_id
    for _ in range(100):
        put(journal, "busy")
    assert journal.lost(1, ALL)
    assert journal.lost(1, only("busy"))
    assert not journal.lost(1, only("quiet"))
    assert not journal.lost(0, only("never heard of"))
    assert journal.resume(here, only("quiet")).gap is None
    assert journal.resume(here, only("quiet", "busy")).gap == Gap(here, journal.head_id)


def test_a_gap_is_told_when_the_topics_own_event_is_gone():
    """The quiet topic's reader that had not seen its event hears of the gap, and goes on after it."""
    journal = make(events=10)
    put(journal, "quiet")
    for _ in range(100):
        put(journal, "busy")
    assert journal.lost(0, only("quiet"))
    assert Resumed(journal.head, journal.head_id, Gap(BEGIN, journal.head_id)) == journal.resume(BEGIN, only("quiet"))


def test_resume_goes_on_exactly_after_since():
    """After a kept event's id, after an id between two events, and from the beginning."""
    journal = make()
    for _ in range(3):
        put(journal)
    assert Resumed(1, EventId(1001, 0)) == journal.resume(EventId(1001, 0), ALL)
    assert Resumed(1, EventId(1001, 7)) == journal.resume(EventId(1001, 7), ALL)
    assert Resumed(0, BEGIN) == journal.resume(BEGIN, ALL)
    assert Resumed(3, journal.head_id) == journal.resume(journal.head_id, ALL)


def test_since_zero_is_all_that_is_kept_and_never_a_gap():
    """`0-0` asks for what there is, not for what there was."""
    journal = make(events=2)
    assert Resumed(0, START) == journal.resume(START, ALL)
    for i in range(5):
        put(journal, data=b"%d" % i)
    resumed = journal.resume(START, ALL)
    assert resumed.gap is None
    assert datas(journal.read(resumed.position, ALL)) == [b"3", b"4"]


@pytest.mark.parametrize("since", [EventId(999, 9), EventId(0, 1)])
def test_an_id_from_before_this_journal_is_a_gap(since):
    """It cannot be known what was then, so it is a gap, up to the beginning or what was forgotten; the rest follows."""
    journal = make(events=2)
    put(journal)
    for topics in (ALL, only("whatever")):
        assert Resumed(0, BEGIN, Gap(since, BEGIN)) == journal.resume(since, topics)
    put(journal, data=b"2")
    put(journal, data=b"3")
    resumed = journal.resume(since, ALL)
    assert Resumed(1, EventId(1001, 0), Gap(since, EventId(1001, 0))) == resumed
    assert [b"2", b"3"] == datas(journal.read(resumed.position, ALL))


def test_an_id_beyond_the_head_is_a_gap():
    """It was not given here, so what its reader has had cannot be known: it goes on at the head."""
    journal = make()
    put(journal)
    since = EventId(9999, 0)
    assert Resumed(1, journal.head_id, Gap(since, journal.head_id)) == journal.resume(since, only("whatever"))


def test_an_id_stands_for_each_position():
    """A reader's position as an id leads back to the same events."""
    journal = make(events=2)
    assert journal.id_at(0) == BEGIN
    for _ in range(4):
        put(journal)
    assert [journal.id_at(position).ms for position in range(5)] == [1002, 1002, 1002, 1003, 1004]


def test_latest_readers_behind_get_the_newest_of_each_key():
    """Of a `latest` topic only what nothing newer has replaced is read; it carries no offset."""
    journal = make(latest=lambda topic: topic == "price")
    for key, data in (("gold", b"1"), ("silver", b"2"), ("gold", b"3")):
        assert put(journal, "price", data, key).offset is None
    assert put(journal, "news", b"4").offset == 1
    assert datas(journal.read(0, ALL)) == [b"2", b"3", b"4"]
    assert datas(journal.read(2, only("price"))) == [b"3"]


def test_forgetting_what_was_replaced_is_no_loss():
    """An old price that a newer one replaced can be missed by nobody; the newest one can."""
    journal = make(events=2, latest=lambda _: True)
    for data in (b"1", b"2", b"3"):
        put(journal, "price", data, "gold")
    assert not journal.lost(0, ALL)
    put(journal, "price", b"4", "silver")
    put(journal, "price", b"5", "silver")
    assert journal.lost(2, only("price"))
    assert not journal.lost(3, only("price"))


@pytest.mark.parametrize("topics", [ALL, only("a", "b")])
def test_a_range_is_cut_at_fixed_places(topics):
    """Readers that begin at different events are at the same position after their first range."""
    journal = make()
    for i in range(100):
        put(journal, "ab"[i % 2], b"x" * 36)  # which counts as 100 bytes
    ends = {journal.read(position, topics, 1000).end for position in range(9)}
    assert ends == {9}
    assert len(journal.read(9, topics, 1000).events) == 10
    assert journal.read(95, topics, 20_000).end == 100
    assert journal.read(95, topics, 10_000).end == 99  # the hundredth event's last byte is the first of the next range


def test_ranges_of_several_topics_leave_nothing_out():
    """A small event of one topic does not slip past a larger one of another that no longer fits."""
    journal = make()
    for topic, size in (("a", 100), ("a", 100), ("b", 0)):
        put(journal, topic, b"x" * size)
    assert [journal.read(position, only("a", "b"), 250).end for position in (0, 1)] == [1, 3]


def test_a_large_event_goes_alone():
    """An event larger than a range is one range, between those of its neighbours."""
    journal = make()
    for size in (1, 1, 5000, 1, 1):
        put(journal, data=b"x" * size)
    found = [journal.read(position, ALL, 1000) for position in (0, 2, 3)]
    assert [(len(each.events), each.end) for each in found] == [(2, 2), (1, 3), (2, 5)]


def test_too_many_topics_fold_into_a_floor():
    """The longest silent topics are dropped; their losses are still losses, and readers are warned before."""
    journal = make(events=3, topics_limit=20)
    warned = []
    journal.on_fold = lambda: warned.append(journal.lost(0, only("new")))
    for i in range(20):
        put(journal, f"t{i}")
    assert warned == []
    put(journal, "new")
    assert warned == [False]  # asked before the floor rose: a reader there could still be told apart
    assert journal.statistics().topics == 19
    assert journal.lost(0, only("t0"))
    assert journal.lost(0, only("t1"))
    assert not journal.lost(2, only("t0", "t1"))
    assert put(journal, "t0").offset == 1


def test_too_many_topics_with_events_push_the_oldest_events_out():
    """Where every topic still holds an event, the oldest go until a tenth of the topics is free."""
    journal = make(topics_limit=20)
    for i in range(20):
        put(journal, f"t{i}")
    put(journal, "new")
    assert (len(journal), journal.statistics().topics, journal.statistics().forgotten) == (19, 19, 2)


def test_keys_are_bounded():
    """A key beyond the limit is kept like an event of its own: nothing is withheld, nothing replaced."""
    journal = make(keys_limit=1, latest=lambda _: True)
    for key in ("a", "b", "a", "b"):
        put(journal, "price", key.encode(), key)
    assert journal.statistics().keys == 1
    assert datas(journal.read(0, ALL)) == [b"b", b"a", b"b"]


def test_history_gives_the_newest_or_a_page():
    """Without `since` the newest; with it the next ones, and whether something before them is gone."""
    journal = make(events=5)
    for i in range(8):
        put(journal, "ab"[i % 2], b"%d" % i)
    newest, gap = journal.history(ALL, None, 2)
    assert ([event.data for event in newest], gap) == ([b"6", b"7"], False)
    page, gap = journal.history(only("b"), EventId(1004, 0), 1)
    assert ([event.data for event in page], gap) == ([b"5"], False)
    page, gap = journal.history(ALL, BEGIN, 2)
    assert ([event.data for event in page], gap) == ([b"3", b"4"], True)


def test_forgotten_events_are_given_back_at_once():
    """A large event's memory is free when the event is forgotten, not when the list is next moved together."""
    journal = make(events=1)
    data = b"x" * 1000
    put(journal, data=data)
    held = sys.getrefcount(data)
    put(journal)
    assert held - 1 == sys.getrefcount(data)


def test_a_long_life_takes_no_more_room():
    """After a hundred thousand events the lists inside are about as long as what is kept."""
    journal = make(events=100)
    for i in range(100_000):
        put(journal, f"t{i % 7}")
    assert (len(journal), journal.statistics().head) == (100, 100_000)
    assert len(journal._events) < 1000
    assert all(len(topic.seqs) < 200 for topic in journal._topics.values())
