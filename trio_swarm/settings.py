"""Settings: every limit a number, its unit in its name or docstring, its reason beside it.

One immutable attrs tree, checked by settings_rules.py whenever one is made. settings_loading.py reads it from a TOML
file and the environment.
"""

from typing import Final, Literal

import attrs

from trio_swarm.errors import SettingsError
from trio_swarm.settings_rules import first_fault, flatten

KIB = 1024
MIB = 1024 * KIB

RANGE_BYTES = 64 * KIB  # one write of replay: large enough to amortise a system call, small enough to share and to hold

MEMORY: Final = "memory:"  # the store that ends with its process

# Bounds that nobody need set; they stand here because what is bounded is counted (health/budget.py), wherever it is.
REPEAT_S: Final = 5.0  # R32: so long it is known what was done under a message id; the client's `publish` counts on it
REPEAT_ENTRIES: Final = 5_000  # answers to WebSocket messages, kept for `REPEAT_S` for whoever repeats one
REPEAT_BYTES: Final = 4 * KIB  # of one of them: 20 MiB in all; a repeat of a larger one is told that it was done
REPEATS: Final = 5_000  # publications of whoever repeats one, kept likewise
BLANK_JOURNALS: Final = 1_000  # 3 KB each; their clients come back to "nothing missed" rather than to a gap
QUEUE_FRAMES: Final = 16  # lets a feed's reader see pongs while an object is busy; of 4 MiB each they are 64 MiB a feed
LARGE_MESSAGE_BYTES: Final = 64 * KIB  # of a feed: a larger one is alone in its lane, or 256 of 4 MiB would be there
SPARE_CONNECTIONS: Final = 0.1  # of the limit, for short requests: at the limit the edge still has to say so
FEED_TOPICS: Final = 10_000  # whose last number a feed remembers: as many as one journal holds
SMALL_ANSWER_BYTES: Final = 4 * KIB  # an answer up to this is never refused, nor counted among `answers_bytes`
PREFIXES: Final = 4_096  # of (stream, topic, type), encoded: a busy server's topics, not all it ever had
STEPS_A_PASS: Final = 256  # encoded ranges remembered within a pass of the broadcaster: 16 MiB at most
REFUSED_LIVES: Final = 10_000  # incarnations a store remembers as broken; each restarts at once, so few are needed
OBJECTS_KNOWN: Final = 10_000  # whose row number and size SQLite's writer remembers
VIEWERS: Final = 8  # of the control socket: a few terminals, and a script that forgot to close


@attrs.frozen
class Limits:
    """What one process takes on at most."""

    connections: int = 10_000  # measured memory: about 0.25 GiB of idle streams
    objects_per_kind: int = 1_000  # R9: the next one is refused
    journals: int = 10_000  # LRU: journals of idle objects beyond this are dropped
    live_journal_bytes: int = 1024 * MIB  # of all live objects: a thousand full journals; the largest give way first
    idle_journal_bytes: int = 256 * MIB  # of objects that stopped, for clients that come back
    topics_per_journal: int = 10_000  # a client-made topic costs about 500 bytes
    keys_per_journal: int = 10_000  # for `latest` topics
    topics_per_subscription: int = 100  # one URL or message; more topics mean: subscribe to all
    streams_per_connection: int = 100  # one WebSocket
    subscribed_topics: int = 500_000  # named by all readers together, 1 where all are meant: about 0.25 GiB
    event_bytes: int = 100 * KIB  # from clients; R33
    body_bytes: int = 1 * MIB  # one HTTP request body
    bodies_bytes: int = 128 * MIB  # of all requests under way, as decoded: 60 of the largest, 10,000 of a usual one
    answers_bytes: int = 128 * MIB  # of large answers on their way: 120 full journals; a reader has its own at once
    message_bytes: int = 100 * KIB  # one WebSocket message from a client
    upstream_frame_bytes: int = 4 * MIB  # BitMEX opens with 709 KB
    memory_store_bytes: int = 64 * MIB  # `memory:` refuses beyond this
    shared_range_bytes: int = 16 * MIB  # encoded ranges kept for laggards at the same position


@attrs.frozen
class JournalSettings:
    """How much history one object keeps; whichever bound is met first."""

    events: int = 1_000
    bytes: int = 1 * MIB
    age_s: float = 300.0  # R30


HUB_JOURNAL = JournalSettings(events=20_000, bytes=16 * MIB)  # a market's burst: 30 s of Coinbase is 10,000 events


@attrs.frozen
class StallSettings:
    """When a client that does not read is cut off."""

    seconds: float = 30.0  # without headway; longer than a tunnel, shorter than a journal's age
    bytes_per_s: int = 2 * KIB  # on average over one write, after `seconds`; a poor mobile line has more


@attrs.frozen
class LivenessSettings:
    """How silence is noticed, towards clients."""

    ping_s: float = 10.0  # R5; well within the 60 s after which the usual proxies give up a quiet connection
    dead_s: float = 30.0  # three pings unanswered (R5)
    header_s: float = 10.0  # a request's head must be whole by then: nobody types it by hand
    body_s: float = 20.0  # a body of at most 1 MiB, or one WebSocket message
    keep_alive_s: float = 15.0  # an idle HTTP connection between two requests
    closing_s: float = 2.0  # for the peer, after a goodbye of either side: a few round trips; within `shutdown_s`
    shutdown_s: float = 5.0  # R39: everything is over by then
    retry_min_s: float = 1.0  # clients come back spread over this span after a shutdown
    retry_max_s: float = 10.0  # ten thousand clients are then about 1,100 a second


@attrs.frozen
class ObjectSettings:
    """Turns, mailboxes and restarts."""

    turn_s: float = 30.0  # a turn's deadline: no upstream call should be awaited longer inside one
    grace_s: float = 5.0  # R11: an idle object, and an upstream topic nobody wants, lives on this long
    control_lane: int = 64  # snapshots, demand, stop: coalesced by their senders, so few
    call_lane: int = 256  # a caller beyond this waits
    feed_lane: int = 256  # a feed beyond this is not read: backpressure down to TCP
    commits_in_flight: int = 64  # turns whose commit is under way; the next turn waits
    crashes: int = 3  # within `crash_window_s`; the next crash makes the object `failed`
    crash_window_s: float = 60.0
    backoff_initial_s: float = 1.0  # doubled with each crash, and jittered
    backoff_max_s: float = 30.0  # and between two probes of a failed one
    stop_s: float = 2.0  # an author's `stop`, and then the last commits; both fit into `liveness.shutdown_s`
    tasks: int = 1_000  # timers, feeds and background tasks of one object


@attrs.frozen
class AlarmSettings:
    """Alarms: timers that outlive the process."""

    retries: int = 6  # of one that raises: from 2 s on, doubling, they take about two minutes
    retry_initial_s: float = 2.0
    at_once: int = 64  # turns of alarms under way; the next due one waits for one of them
    spread_s: float = 10.0  # over which those that fell due while no process ran are rung: not all upstreams at once


@attrs.frozen
class UpstreamSettings:
    """One supervised feed."""

    connect_s: float = 30.0  # R3
    ping_s: float = 10.0  # to a feed as to clients
    dead_s: float = 30.0  # three pings unanswered; it counts every byte, so a feed that streams needs no pong
    close_s: float = 1.0  # the closing handshake of a peer that may be gone
    quick_restarts: int = 3  # within `window_s`; then `down`, and a probe every `backoff_max_s`
    window_s: float = 60.0
    backoff_initial_s: float = 1.0
    backoff_max_s: float = 30.0


@attrs.frozen
class FeedSettings:
    """One `[[feed]]`: `hub/<name>` serves it. The last fields are for `protocol = "jsonfeed"` alone."""

    name: str
    url: str
    protocol: str = "jsonfeed"
    topics: tuple[str, ...] = ()  # fixed: connect at start and stay; empty: on demand
    channels: tuple[str, ...] = ()
    subscribe: str = ""  # the text to send; `{topic}` stands for one topic, `{topics}` for a JSON list of them
    unsubscribe: str = ""
    topic_path: str = ""  # dotted path into a frame, such as `data.0.symbol`
    key_path: str = ""
    sequence_path: str = ""
    skip: tuple[str, ...] = ()  # a frame that has one of these paths (`path`) or values (`path=value`) is no event


@attrs.frozen
class Settings:
    """Everything an operator may set. Frozen: a change is a new value (`attrs.evolve`).

    Raises:
        SettingsError: a number is out of its range, or two do not go together.
    """

    bind: str = "127.0.0.1:8000"
    open: bool = False  # serve beyond loopback although nobody is asked who they are
    store: str = MEMORY
    control: str = "auto"  # where `top` looks: a socket's path, `off`, or `auto` (a command's own choice)
    certfile: str = ""  # a chain in PEM, and its key: `serve` then speaks TLS; both, or neither
    keyfile: str = ""
    log: Literal["auto", "console", "json"] = "auto"  # for people on a terminal, for machines elsewhere
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    access_log: bool = False  # 3 µs a request; off, because a proxy in front has one, and metrics count requests
    metrics: bool = True  # `GET /metrics`; a proxy keeps it from outsiders
    limits: Limits = Limits()
    journal: JournalSettings = JournalSettings()
    stall: StallSettings = StallSettings()
    liveness: LivenessSettings = LivenessSettings()
    objects: ObjectSettings = ObjectSettings()
    alarms: AlarmSettings = AlarmSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    feed: tuple[FeedSettings, ...] = ()

    def __attrs_post_init__(self) -> None:
        fault = first_fault(flatten(self))
        if fault is not None:
            raise SettingsError("settings", str(fault))
