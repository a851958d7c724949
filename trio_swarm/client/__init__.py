"""The other end of the wire: a stream of events that comes back by itself, and publishing that repeats nothing.

    async with open_events("http://localhost:8000/v1/channel/lobby/events") as events:
        async for happening in events: ...

`sse.py` and `websocket.py` are two ways to read one connection; `event_source.py` is what makes a stream of many
connections, one after the other; `coming_back.py` decides, without any I/O, whether and when; `publishing.py` is the
way in. They tell what happens as `happenings.py`. All stand on `http.py` and on the WebSocket of `trio_swarm.upstream`,
and reach the service as `access.py` says.
"""

from trio_swarm.client.access import Access
from trio_swarm.client.event_source import EventSource, open_events, open_streams
from trio_swarm.client.happenings import Connected, Event, Gap, Happening, Lost, Problem, Snapshot, Status
from trio_swarm.client.publishing import Published, Publisher

__all__ = [
    "Access",
    "Connected",
    "Event",
    "EventSource",
    "Gap",
    "Happening",
    "Lost",
    "Problem",
    "Published",
    "Publisher",
    "Snapshot",
    "Status",
    "open_events",
    "open_streams",
]
