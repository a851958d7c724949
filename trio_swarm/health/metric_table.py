"""Every metric of ours; docs/metrics.md has the same table, and a test compares the two."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Final

from trio_swarm.health.metric import Metric, Moment, Values, each, limit, one, table
from trio_swarm.settings import REPEATS

LANES: Final = ("control", "call", "feed")
OBJECT_STATES: Final = ("starting", "running", "stopping", "backoff", "failed")
ALARM_OUTCOMES: Final = ("rung", "retried", "failed", "postponed")
FEED_STATES: Final = ("connecting", "live", "down", "closed")


def _states(kind: Any) -> Values:
    return [((kind.kind, state), kind.states.get(state, 0)) for state in OBJECT_STATES]


def _lanes(kind: Any, depths: Any) -> Values:
    return [((kind.kind, lane), depth) for lane, depth in zip(LANES, depths, strict=True)]


def _lane_limits(moment: Moment) -> Values:
    objects = moment.settings.objects
    sizes = (objects.control_lane, objects.call_lane, objects.feed_lane)
    return [((lane,), size) for lane, size in zip(LANES, sizes, strict=True)] if moment.part("kinds") else []


def _lagging(moment: Moment) -> Iterator[tuple[tuple[str, ...], float]]:
    streams = moment.part("streams")
    if streams is not None:
        lagging: dict[str, int] = {kind.kind: 0 for kind in moment.part("kinds") or ()}
        for stream in streams.streams:
            kind = stream.name.partition("/")[0]
            lagging[kind] = lagging.get(kind, 0) + stream.lagging
        for kind, count in lagging.items():
            yield (kind,), count


def _alarms(moment: Moment) -> Values:
    told = moment.part("alarms")
    return [] if told is None else [((outcome,), getattr(told, outcome)) for outcome in ALARM_OUTCOMES]


def _feeds(moment: Moment) -> Iterator[Any]:
    for kind in moment.part("kinds") or ():
        yield from kind.named_feeds


def _feed_states(moment: Moment) -> Values:
    return [((feed.name, state), float(feed.state == state)) for feed in _feeds(moment) for state in FEED_STATES]


def _feed_count(key: str) -> Any:
    return lambda moment: [((feed.name,), feed.counts.get(key, 0)) for feed in _feeds(moment)]


def _feed_silence(moment: Moment) -> Values:
    return [
        ((feed.name,), max(0.0, moment.now - feed.last_byte_at))
        for feed in _feeds(moment)
        if feed.last_byte_at is not None
    ]


def _requests(moment: Moment) -> Values:
    answered = moment.part("answered")
    return [] if answered is None else [((action, str(status)), n) for (action, status), n in answered.counts.items()]


def _writer(store: Any) -> Any:
    return getattr(store, "writer", store)  # SQLite has a writer that counts, memory counts itself


_CLIENTS: Final = (
    Metric("trio_swarm_clients", "gauge", "Open streams and WebSockets.",
           table("clients", lambda c: {"sse": c.sse, "websocket": c.websocket}), ("transport",)),
    Metric("trio_swarm_clients_limit", "gauge", "limits.connections: the next client is refused.",
           limit("clients", lambda s: s.limits.connections)),
    Metric("trio_swarm_clients_blocked", "gauge", "Clients whose socket is full: they read slower than is written.",
           one("clients", lambda c: c.blocked)),
    Metric("trio_swarm_clients_opened_total", "counter", "Clients taken in.",
           table("clients", lambda c: c.opened_by_transport), ("transport",)),
    Metric("trio_swarm_clients_refused_total", "counter", "Clients refused because there were as many as there may be.",
           one("clients", lambda c: c.refused)),
    Metric("trio_swarm_clients_ended_total", "counter", "Clients that the service ended, by reason.",
           table("clients", lambda c: c.ended), ("reason",)),
    Metric("trio_swarm_connections", "gauge", "Open connections, streams and WebSockets among them.",
           one("connections", lambda c: c.connections)),
    Metric("trio_swarm_connections_refused_total", "counter", "Connections closed at once: there were too many.",
           one("connections", lambda c: c.refused)),
    Metric("trio_swarm_connections_aborted_total", "counter", "Connections ended by force, by reason.",
           table("connections", lambda c: c.aborted), ("reason",)),
    Metric("trio_swarm_requests_total", "counter", "Requests answered, by what was asked and HTTP status.",
           _requests, ("action", "status")),
    Metric("trio_swarm_request_bytes", "gauge", "Bytes of bodies and messages that requests under way hold.",
           one("requests", lambda r: r.held)),
    Metric("trio_swarm_request_limit_bytes", "gauge", "limits.bodies_bytes: beyond it requests are refused.",
           one("requests", lambda r: r.limit)),
    Metric("trio_swarm_request_bytes_refused_total", "counter", "Requests refused because no bytes were left.",
           one("requests", lambda r: r.refused)),
    Metric("trio_swarm_answer_bytes", "gauge", "Bytes of large answers and snapshots that clients have not taken.",
           one("answers", lambda a: a.held)),
    Metric("trio_swarm_answer_limit_bytes", "gauge", "limits.answers_bytes: beyond it large answers are refused.",
           one("answers", lambda a: a.limit)),
    Metric("trio_swarm_answer_bytes_refused_total", "counter", "Large answers refused because no bytes were left.",
           one("answers", lambda a: a.refused)),
)  # fmt: skip

_OBJECTS: Final = (
    Metric("trio_swarm_objects", "gauge", "Objects by kind and state.", each("kinds", _states), ("kind", "state")),
    Metric("trio_swarm_objects_limit", "gauge", "limits.objects_per_kind: the next object is refused.",
           each("kinds", lambda k: [((k.kind,), k.limit)]), ("kind",)),
    Metric("trio_swarm_object_starts_total", "counter", "Lives begun; an object that is started again counts again.",
           each("kinds", lambda k: [((k.kind,), k.started)]), ("kind",)),
    Metric("trio_swarm_object_failures_total", "counter", "Lives that ended in an error.",
           each("kinds", lambda k: [((k.kind,), k.failures)]), ("kind",)),
    Metric("trio_swarm_turns_total", "counter", "Turns taken.",
           each("kinds", lambda k: [((k.kind,), k.turns)]), ("kind",)),
    Metric("trio_swarm_turn_seconds_total", "counter", "Time spent in turns, waiting inside them included.",
           each("kinds", lambda k: [((k.kind,), k.turn_s)]), ("kind",)),
    Metric("trio_swarm_turn_longest_seconds", "gauge", "The longest turn of the objects there are.",
           each("kinds", lambda k: [((k.kind,), k.longest_turn_s)]), ("kind",)),
    Metric("trio_swarm_turn_limit_seconds", "gauge", "objects.turn_s: a longer turn restarts its object.",
           limit("kinds", lambda s: s.objects.turn_s)),
    Metric("trio_swarm_mailbox_waiting", "gauge", "What waits for a turn, by lane, over all objects of a kind.",
           each("kinds", lambda k: _lanes(k, k.waiting)), ("kind", "lane")),
    Metric("trio_swarm_mailbox_deepest", "gauge", "The same of the one object where most waits.",
           each("kinds", lambda k: _lanes(k, k.deepest)), ("kind", "lane")),
    Metric("trio_swarm_mailbox_limit", "gauge", "Places in a lane of one object; who finds none waits.",
           _lane_limits, ("lane",)),
    Metric("trio_swarm_gate_deepest", "gauge", "Turns waiting for a commit, of the one object where most do.",
           each("kinds", lambda k: [((k.kind,), k.most_at_gate)]), ("kind",)),
    Metric("trio_swarm_gate_limit", "gauge", "objects.commits_in_flight: no further turn begins.",
           limit("kinds", lambda s: s.objects.commits_in_flight)),
    Metric("trio_swarm_object_tasks_most", "gauge", "Timers, feeds and tasks of the one object that has most.",
           each("kinds", lambda k: [((k.kind,), k.most_tasks)]), ("kind",)),
    Metric("trio_swarm_object_tasks_limit", "gauge", "objects.tasks.", limit("kinds", lambda s: s.objects.tasks)),
    Metric("trio_swarm_alarms_ringing", "gauge", "Alarms whose turn is under way.",
           one("alarms", lambda a: a.ringing)),
    Metric("trio_swarm_alarms_ringing_limit", "gauge", "alarms.at_once: the next one waits.",
           limit("alarms", lambda s: s.alarms.at_once)),
    Metric("trio_swarm_alarms_total", "counter", "Alarms by what came of them.",
           _alarms, ("outcome",)),
    Metric("trio_swarm_remembered_messages", "gauge", "Published messageIds that are remembered.",
           one("directory", lambda d: d.remembered_messages)),
    Metric("trio_swarm_remembered_messages_limit", "gauge", "The oldest go.", limit("directory", lambda _: REPEATS)),
)  # fmt: skip

_STREAMS: Final = (
    Metric("trio_swarm_readers", "gauge", "Readers of objects' streams, in this process too.",
           each("kinds", lambda k: [((k.kind,), k.readers)]), ("kind",)),
    Metric("trio_swarm_readers_lagging", "gauge", "Readers that are behind because their socket is full.",
           _lagging, ("kind",)),
    Metric("trio_swarm_journal_events", "gauge", "Events that the journals of live objects hold.",
           each("kinds", lambda k: [((k.kind,), k.journal_events)]), ("kind",)),
    Metric("trio_swarm_journal_bytes", "gauge", "Bytes of them.",
           each("kinds", lambda k: [((k.kind,), k.journal_bytes)]), ("kind",)),
    Metric("trio_swarm_idle_journals", "gauge", "Journals kept of objects that stopped.",
           one("streams", lambda s: s.idle)),
    Metric("trio_swarm_idle_journals_limit", "gauge", "limits.journals: the oldest go.",
           limit("streams", lambda s: s.limits.journals)),
    Metric("trio_swarm_idle_journal_bytes", "gauge", "Bytes of them.", one("streams", lambda s: s.idle_bytes)),
    Metric("trio_swarm_idle_journal_limit_bytes", "gauge", "limits.idle_journal_bytes: the oldest go.",
           limit("streams", lambda s: s.limits.idle_journal_bytes)),
    Metric("trio_swarm_range_cache_bytes", "gauge", "Encoded ranges kept for clients that are behind.",
           one("streams", lambda s: s.shared_range_bytes)),
    Metric("trio_swarm_range_cache_limit_bytes", "gauge", "limits.shared_range_bytes.",
           limit("streams", lambda s: s.limits.shared_range_bytes)),
    Metric("trio_swarm_range_cache_hits_total", "counter", "Ranges found encoded.",
           one("streams", lambda s: s.range_hits)),
    Metric("trio_swarm_range_cache_misses_total", "counter", "Ranges encoded; those up to the newest event always are.",
           one("streams", lambda s: s.range_misses)),
    Metric("trio_swarm_events_published_total", "counter", "Events that entered a journal.",
           one("streams", lambda s: s.broadcaster.published)),
    Metric("trio_swarm_events_delivered_total", "counter", "Events, each as often as it was written to a reader.",
           one("streams", lambda s: s.broadcaster.deliveries)),
    Metric("trio_swarm_delivered_bytes_total", "counter", "Bytes of them, framing included.",
           one("streams", lambda s: s.broadcaster.delivered_bytes)),
    Metric("trio_swarm_broadcaster_passes_total", "counter", "Passes over what was new.",
           one("streams", lambda s: s.broadcaster.passes)),
    Metric("trio_swarm_broadcaster_writes_total", "counter", "Writes to readers; many events may share one.",
           one("streams", lambda s: s.broadcaster.writes)),
    Metric("trio_swarm_broadcaster_marked", "gauge", "Views and readers that the next pass will visit.",
           one("streams", lambda s: s.broadcaster.marked_views + s.broadcaster.marked_readers)),
)  # fmt: skip

_STORE: Final = (
    Metric("trio_swarm_store_bytes", "gauge", "What the store holds.", one("storage", lambda s: s.bytes)),
    Metric("trio_swarm_store_limit_bytes", "gauge", "limits.memory_store_bytes, with the store in memory.",
           one("storage", lambda s: getattr(s, "limit_bytes", None))),
    Metric("trio_swarm_store_failing", "gauge", "1 while the store takes no commits.",
           one("storage", lambda s: float(getattr(_writer(s), "error", None) is not None))),
    Metric("trio_swarm_commits_total", "counter", "Turns whose changes were stored.",
           one("storage", lambda s: _writer(s).commits)),
    Metric("trio_swarm_commits_refused_total", "counter", "Turns whose changes the store refused.",
           one("storage", lambda s: _writer(s).refused)),
    Metric("trio_swarm_commits_waiting", "gauge", "Commits that wait for the store's thread, where it has one.",
           one("storage", lambda s: getattr(_writer(s), "waiting", None))),
)  # fmt: skip

_FEEDS: Final = (
    Metric("trio_swarm_feeds", "gauge", "Open feeds by kind of object and state, an author's own too.",
           each("kinds", lambda k: [((k.kind, s), n) for s, n in sorted(k.feed_states.items()) if s in FEED_STATES]),
           ("kind", "state")),
    Metric("trio_swarm_feed_state", "gauge", "1 for the state that a feed of the settings is in.",
           _feed_states, ("feed", "state")),
    Metric("trio_swarm_feed_attempts_total", "counter", "Connections tried.", _feed_count("attempts"), ("feed",)),
    Metric("trio_swarm_feed_connects_total", "counter", "Connections made.", _feed_count("connects"), ("feed",)),
    Metric("trio_swarm_feed_failures_total", "counter", "Connections, or attempts at one, that ended.",
           _feed_count("failures"), ("feed",)),
    Metric("trio_swarm_feed_frames_total", "counter", "Frames received.", _feed_count("frames"), ("feed",)),
    Metric("trio_swarm_feed_events_total", "counter", "Frames that are events.", _feed_count("events"), ("feed",)),
    Metric("trio_swarm_feed_undecodable_total", "counter", "Frames that could not be read.",
           _feed_count("undecodable"), ("feed",)),
    Metric("trio_swarm_feed_missing_total", "counter", "Frames that the feed's own numbers say it did not send.",
           _feed_count("missing"), ("feed",)),
    Metric("trio_swarm_feed_received_bytes_total", "counter", "Bytes received.",
           _feed_count("received_bytes"), ("feed",)),
    Metric("trio_swarm_feed_silence_seconds", "gauge", "Since the last byte, while connected.",
           _feed_silence, ("feed",)),
)  # fmt: skip

_PROCESS: Final = (
    Metric("trio_swarm_uptime_seconds", "gauge", "Since the runtime began.",
           lambda moment: [((), moment.statistics.uptime_s)]),
    Metric("trio_swarm_info", "gauge", "1, with the version.",
           lambda _: [((version("trio-swarm"),), 1.0)], ("version",)),
    Metric("trio_swarm_tasks", "gauge", "Trio tasks.", one("loop", lambda s: s.tasks)),
    Metric("trio_swarm_log_held_bytes", "gauge", "Log lines that the log's descriptor has not taken yet.",
           one("log", lambda s: s.held_bytes)),
    Metric("trio_swarm_log_limit_bytes", "gauge", "Beyond it lines are dropped.", one("log", lambda s: s.limit_bytes)),
    Metric("trio_swarm_log_lines_total", "counter", "Log lines taken, those of the access log among them.",
           one("log", lambda s: s.lines)),
    Metric("trio_swarm_log_dropped_lines_total", "counter", "Log lines dropped: nobody read them.",
           one("log", lambda s: s.dropped)),
)  # fmt: skip

METRICS: Final[tuple[Metric, ...]] = (*_CLIENTS, *_OBJECTS, *_STREAMS, *_STORE, *_FEEDS, *_PROCESS)

LOOP_DELAY: Final = ("trio_swarm_loop_delay_seconds", "How much later than it should a task was woken.")
"""The one histogram; made from `health.loop_delay`."""
