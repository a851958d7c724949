"""The event that is measured: about 150 bytes of JSON that carry when they were published and which they are."""

import time

from trio_swarm.fanout.encoding import SSE_CHUNKED, WS_FRAMES
from trio_swarm.journal.event import Event, EventId

STREAM = "bench/x"
SIZE = 150


def payload(stamp_ns: int, number: int, topic: int) -> bytes:
    """Make one event's JSON of `SIZE` bytes."""
    head = b'{"ts":%d,"seq":%d,"t":%d,"pad":"' % (stamp_ns, number, topic)
    return head + b"x" * (SIZE - 2 - len(head)) + b'"}'


def topic_names(count: int) -> list[str]:
    """The topics' names; none at all for a run without topics, where every event has the topic ''."""
    return [f"t{index}" for index in range(count)]


def readers(clients: int, topics: int, at: int, burst: int) -> int:
    """Return how many clients read any of `burst` events from `at` on; event i and client i have topic i mod topics."""
    if burst >= topics:
        return clients
    each, more = divmod(clients, topics)
    return sum(each + ((at + index) % topics < more) for index in range(burst))


def wire_bytes(transport: str, number: int, topic: str) -> bytes:
    """Return what the service sends for one such event, framing and all."""
    data = payload(time.monotonic_ns(), number, 0)
    event = Event(number, EventId(1_700_000_000_000, number), topic, "message", data, None, number, 0.0)
    encoding = SSE_CHUNKED if transport == "sse" else WS_FRAMES
    framed: bytes = encoding.events(STREAM, [event])
    return framed
