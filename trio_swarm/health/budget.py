"""What the settings may cost in memory at worst: part by part, each a count times a size.

Everything that the outside world can fill has a number, and this file multiplies: connections, what a slow client has
not taken, topics that are subscribed to, requests under way, journals, answers kept for a repeat, feeds, the store.
The sizes beside the settings' own are measured (`benchmarks/memory.py` measures them again, and prints both). What an
object's author keeps in attributes, and what the methods they call make, cannot be known here.

Most parts cannot be full all at once by themselves; an attacker, or a bad day, can fill each of them. So the total
is what a machine must have so that nothing there can end the process for want of memory. Beside it stands what the
kernel may hold for our sockets, which counts against a container's limit too.

Pure: settings in, rows out.
"""

from collections.abc import Sequence
from typing import Final

import attrs

from trio_swarm.journal.journal import EVENT_BYTES, KEY_BYTES, OVERHEAD_BYTES, TOPIC_BYTES
from trio_swarm.settings import (
    BLANK_JOURNALS,
    FEED_TOPICS,
    HUB_JOURNAL,
    KIB,
    LARGE_MESSAGE_BYTES,
    MEMORY,
    MIB,
    OBJECTS_KNOWN,
    PREFIXES,
    QUEUE_FRAMES,
    RANGE_BYTES,
    REFUSED_LIVES,
    REPEAT_BYTES,
    REPEAT_ENTRIES,
    REPEATS,
    SPARE_CONNECTIONS,
    STEPS_A_PASS,
    VIEWERS,
    JournalSettings,
    Settings,
)

# Measured by benchmarks/memory.py on CPython 3.11, in bytes; names of 20 characters where there are names.
PROGRAM_BYTES: Final = 64 * MIB  # resident when it serves and nobody is there: the interpreter and the libraries
DIRECT_BYTES: Final = 30_000  # an idle WebSocket with one stream: 25,000, and 33,000 after all have asked at once
ASGI_BYTES: Final = 36_000  # the same under TLS: each client has a writing task
TLS_BYTES: Final = 25_000  # what OpenSSL holds for a connection, beside that
TOPIC_NAMED_BYTES: Final = 470  # a topic that a reader names and nobody else: its view, its place in two tables
OBJECT_BYTES: Final = 22_000  # a live object of an empty class: 18,500; with a reader in its own process 24,000
STREAM_BYTES: Final = 2_300  # the stream and the empty journal of an object that has stopped
ANSWER_ENTRY_BYTES: Final = 2_000  # an answer kept for a repeat, beside its bytes: 420, and holes between large ones
PUBLISHED_BYTES: Final = 870  # a publication kept for a repeat, with a message id of 200 characters
MESSAGE_BYTES: Final = 320  # a feed's message in its lane, beside the frame
FEED_TOPIC_BYTES: Final = 150  # the last number of a feed's topic
REFUSED_BYTES: Final = 300  # an incarnation that had a commit refused
KNOWN_BYTES: Final = 300  # a row number and a size that SQLite's writer remembers
COMMIT_BYTES: Final = 700  # a commit under way with one small value
VIEWER_BYTES: Final = 2 * MIB  # a line of the control socket with the tree of ten thousand clients
PREFIX_BYTES: Final = 300  # an encoded name in front of an event

FORMATS: Final = 4  # fanout/encoding.py: plain and in envelopes, direct; as frames; one for TLS
SQLITE_BYTES: Final = 5 * 2 * MIB  # the page caches of its writer and four readers
FRAMES_BESIDE: Final = 3  # of a feed, beside its queue: one in its pieces, one put together, one in the object's turn

SEND_BUFFER_BYTES: Final = 160 * KIB  # TCP_NOTSENT_LOWAT, and what may be on its way to a client that has stopped
RECEIVE_BUFFER_BYTES: Final = 128 * KIB  # what the kernel takes at first for a socket that we do not read


@attrs.frozen
class Row:
    """One part: `count` times `size` bytes.

    Attributes:
        part: what it is.
        count: how many at most.
        size: bytes of one.
        settings: those that make it so, by their dotted names.
        why: where the size comes from.
    """

    part: str
    count: int
    size: int
    settings: tuple[str, ...]
    why: str

    @property
    def bytes(self) -> int:
        """At worst."""
        return self.count * self.size


@attrs.frozen
class Budget:
    """The rows of the process, and those of the kernel for it."""

    rows: tuple[Row, ...]
    kernel: tuple[Row, ...]

    @property
    def total(self) -> int:
        """Of the process, in bytes."""
        return sum(row.bytes for row in self.rows)

    @property
    def kernel_total(self) -> int:
        """Of the kernel's buffers, in bytes."""
        return sum(row.bytes for row in self.kernel)


def make_budget(settings: Settings, journals: Sequence[JournalSettings | None] = ()) -> Budget:
    """Count it all.

    Args:
        settings: those in force.
        journals: of each further class that is served, its own (None: it has the settings' one).
    """
    connections = most_connections(settings)
    rows = (
        Row("the program", 1, PROGRAM_BYTES, (), "when nobody is there"),
        *_connection_rows(settings, connections),
        *_request_rows(settings),
        *_journal_rows(settings, journals),
        *_feed_rows(settings),
        *_store_rows(settings, 1 + len(journals)),
        Row("viewers", VIEWERS, VIEWER_BYTES, (), "of the control socket, a line on its way to each"),
    )
    kernel = (
        Row("send buffers", connections, SEND_BUFFER_BYTES, ("limits.connections",), "full, of clients that stopped"),
        Row("receive buffers", connections, RECEIVE_BUFFER_BYTES, ("limits.connections",), "full, not yet read"),
    )
    return Budget(tuple(row for row in rows if row.bytes), kernel)


def most_connections(settings: Settings) -> int:
    """Sockets at once: streams, and some to spare for short requests, 16 at least however low the limit."""
    limit = settings.limits.connections
    return limit + max(16, int(limit * SPARE_CONNECTIONS))


def largest_journal(settings: Settings, journal: JournalSettings) -> int:
    """What one journal costs when it is full of small events, each of its own topic."""
    events = min(journal.events, journal.bytes // OVERHEAD_BYTES + 1)
    limits = settings.limits
    topics, keys = limits.topics_per_journal, min(limits.keys_per_journal, events)
    return journal.bytes + events * EVENT_BYTES + topics * TOPIC_BYTES + keys * KEY_BYTES


def _connection_rows(settings: Settings, connections: int) -> tuple[Row, ...]:
    limits = settings.limits
    secure = bool(settings.certfile)
    each = ASGI_BYTES + TLS_BYTES if secure else DIRECT_BYTES
    rest = max(RANGE_BYTES, limits.event_bytes)
    return (
        Row("connections", connections, each, ("limits.connections",), "idle" + (", with TLS" if secure else "")),
        Row(
            "what slow clients have not taken",
            limits.connections,
            rest,
            ("limits.connections", "limits.event_bytes"),
            "one range each; those at the same place in the same topics share it",
        ),
        Row(
            "topics that readers name",
            limits.subscribed_topics,
            TOPIC_NAMED_BYTES,
            ("limits.subscribed_topics",),
            "each named by one reader alone",
        ),
        Row(
            "ranges kept for laggards",
            1,
            limits.shared_range_bytes,
            ("limits.shared_range_bytes",),
            "the bound itself",
        ),
        Row("ranges of one pass", STEPS_A_PASS, RANGE_BYTES, (), "remembered while it lasts"),
    )


def _request_rows(settings: Settings) -> tuple[Row, ...]:
    return (
        Row(
            "requests under way",
            1,
            settings.limits.bodies_bytes,
            ("limits.bodies_bytes",),
            "bodies, messages in reading and in line, with what is made of them",
        ),
        Row(
            "answers on their way",
            1,
            settings.limits.answers_bytes,
            ("limits.answers_bytes",),
            "histories, results and snapshots that clients have not taken",
        ),
        Row("answers kept for repeats", REPEAT_ENTRIES, REPEAT_BYTES + ANSWER_ENTRY_BYTES, (), "to WebSocket messages"),
        Row("publications kept for repeats", REPEATS, PUBLISHED_BYTES, (), "ids of 200 characters"),
        Row("prefixes of events", PREFIXES, PREFIX_BYTES, (), "encoded names"),
    )


def _journal_rows(settings: Settings, journals: Sequence[JournalSettings | None]) -> tuple[Row, ...]:
    limits, hubs = settings.limits, len(settings.feed)
    kinds = 1 + len(journals)
    full = sum(limits.objects_per_kind * largest_journal(settings, each or settings.journal) for each in journals)
    full += limits.objects_per_kind * largest_journal(settings, settings.journal)
    full += hubs * largest_journal(settings, HUB_JOURNAL)
    live = min(full, limits.live_journal_bytes)
    bound = (
        ("limits.live_journal_bytes",)
        if live < full
        else ("limits.objects_per_kind", "journal.bytes", "journal.events", "limits.topics_per_journal")
    )
    one = largest_journal(settings, settings.journal)
    idle = min(limits.idle_journal_bytes, limits.journals * one)
    return (
        Row(
            "live objects",
            kinds * limits.objects_per_kind + hubs,
            OBJECT_BYTES,
            ("limits.objects_per_kind",),
            "`channel`, the feeds' hubs, and each class; what they keep in attributes is theirs",
        ),
        Row("journals of live objects", 1, live, bound, f"one may have {one:,} bytes, all of them {full:,}"),
        Row("journals of objects that stopped", 1, idle, ("limits.idle_journal_bytes",), "the bound itself"),
        Row(
            "streams of objects that stopped",
            limits.journals + BLANK_JOURNALS,
            STREAM_BYTES,
            ("limits.journals",),
            "beside their events",
        ),
    )


def _feed_rows(settings: Settings) -> tuple[Row, ...]:
    feeds, frame = len(settings.feed), settings.limits.upstream_frame_bytes
    lane = settings.objects.feed_lane
    held = max(HUB_JOURNAL.bytes, frame)
    return (
        Row(
            "feeds' frames",
            feeds * (QUEUE_FRAMES + FRAMES_BESIDE),
            frame,
            ("feed", "limits.upstream_frame_bytes"),
            f"{QUEUE_FRAMES} received and {FRAMES_BESIDE} in work, a feed",
        ),
        Row(
            "feeds' messages in lanes",
            feeds * lane,
            min(LARGE_MESSAGE_BYTES, frame) + MESSAGE_BYTES,
            ("feed", "objects.feed_lane"),
            "a larger one is alone",
        ),
        Row(
            "feeds' large events on their way",
            feeds * FORMATS,
            held,
            ("feed", "limits.upstream_frame_bytes"),
            "as many as a journal keeps, once a format; slow clients may hold on to older ones until they are cut off",
        ),
        Row("numbers of feeds' topics", feeds * FEED_TOPICS, FEED_TOPIC_BYTES, ("feed",), "one a topic"),
    )


def _store_rows(settings: Settings, kinds: int) -> tuple[Row, ...]:
    refused = Row("commits refused", REFUSED_LIVES, REFUSED_BYTES, (), "remembered")
    if settings.store == MEMORY:
        return (
            Row("the store", 1, settings.limits.memory_store_bytes, ("limits.memory_store_bytes",), "the bound itself"),
            refused,
        )
    return (
        refused,
        Row("the store's caches", 1, SQLITE_BYTES, ("store",), "SQLite's pages"),
        Row("objects the store knows", OBJECTS_KNOWN, KNOWN_BYTES, ("store",), "remembered by its writer"),
        Row(
            "commits under way",
            kinds * settings.limits.objects_per_kind * settings.objects.commits_in_flight,
            COMMIT_BYTES,
            ("objects.commits_in_flight", "limits.objects_per_kind"),
            "with a small value each; larger ones are the authors'",
        ),
    )
