"""What a reader is told: what the streams carry, and what becomes of the connection.

`stream` is `kind/id`, None where the server is not ours and has no such name. `data` is text: JSON from a service of
ours, from others whatever they send.
"""

import attrs


@attrs.frozen
class Event:
    """Something was published. `topic` None: the server does not say."""

    stream: str | None
    id: str | None
    topic: str | None
    type: str
    data: str


@attrs.frozen
class Snapshot:
    """The object's whole state; the stream goes on from it."""

    stream: str | None
    id: str | None
    data: str


@attrs.frozen
class Gap:
    """What lies above `after`, up to and including `before`, does not come."""

    stream: str | None
    after: str
    before: str


@attrs.frozen
class Status:
    """A feed behind the object is `connecting`, `live` or `down`; `data` is the JSON that says it."""

    stream: str | None
    data: str


@attrs.frozen
class Problem:
    """The service could not do a part, and the stream goes on."""

    stream: str | None
    code: str
    message: str


@attrs.frozen
class Connected:
    """A connection is up, and the service has agreed."""


@attrs.frozen
class Lost:
    """There is no connection; the next attempt follows in `seconds`."""

    reason: str
    seconds: float


Happening = Event | Snapshot | Gap | Status | Problem | Connected | Lost
