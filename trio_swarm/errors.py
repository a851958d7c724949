"""Every exception of the library, drawn as a tree: whose fault it is, and what it carries.

    SwarmError
    |-- CallerError            the one who called asked for something that cannot be
    |   |-- InvalidName        a kind, id or topic that breaks the naming rules
    |   |-- InvalidEvent       an event that is too large or cannot be encoded
    |   |-- TooLarge           an event, a message or a body has more bytes, or more parts, than allowed
    |   |-- InvalidMessage     a client's message that cannot be read or taken
    |   |-- InvalidPosition    a `since` that is not an event id
    |   |-- UnknownKind        no such kind of object here
    |   |-- UnknownObject      the kind exists and says that this id does not
    |   |-- UnknownMethod      no such method, or it is not exposed
    |   |-- InvalidArguments   the method exists and does not take these arguments
    |   |-- InvalidCapture     a capture file that cannot be played
    |   |-- NotPublishable     the kind takes no events from outside
    |   |-- RequestRefused     an HTTP request that no object was asked about: its path, method, type or time is wrong
    |   `-- CallCycle          the call would wait for its own turn
    |-- LimitError             a number from `settings.py` is reached; later it may work
    |   |-- TooManyObjects     |-- TooManyTopics     |-- TooManyConnections
    |   |-- TooManyStreams     one WebSocket is subscribed to as many streams as it may be
    |   |-- TooManySubscriptions  all readers together name as many topics as they may
    |   |-- Overloaded         the requests under way, or the answers on their way, hold as many bytes as they may
    |   |-- ReaderLagged       a reader in this process was slower than its journal
    |   `-- TooManyTasks       an object has as many timers, feeds and tasks as it may have
    |-- SwarmClosed            the scope has ended, or is ending
    |-- ObjectError            the author's code, or its object, is in trouble
    |   |-- ObjectFailed       it crashed too often and waits for its breaker
    |   |-- ObjectRestarted    it restarted before this turn's outcome was safe
    |   `-- TurnTimeout        the turn ran past its deadline
    |-- PeerError              the other end of a socket broke the rules
    |   |-- FeedUnavailable    an upstream could not be reached, or went away
    |   |-- ServiceUnavailable (in a client) the service could not be reached, or went away; coming back may help
    |   |-- ServiceRefused     (in a client) the service said no, and coming back changes nothing
    |   `-- ProtocolViolation  bytes that its protocol does not allow
    |-- StorageError           the store did not take or give what was asked
    |-- SettingsError          the operator's settings do not add up
    `-- HostError              the ASGI host is not one that we know, or does not do as ASGI says

`Restart` stands apart: author code raises it to have its object restarted from storage.
"""

from typing import ClassVar

import attrs


class SwarmError(Exception):
    """The root of the tree. `code` is stable, lower case, and is what clients see beside the sentence."""

    code: ClassVar[str] = "internal"


class CallerError(SwarmError):
    """The caller asked for something that cannot be; asking again changes nothing."""

    code = "bad_request"


@attrs.define(auto_exc=True, str=False)
class InvalidName(CallerError):
    """A kind, id or topic breaks the naming rules."""

    code = "invalid_name"
    what: str
    name: str
    rule: str

    def __str__(self) -> str:
        return f"{self.what} {self.name[:80]!r} is not valid: {self.rule}"


@attrs.define(auto_exc=True, str=False)
class InvalidEvent(CallerError):
    """An event is too large or cannot be encoded; `line` counts from 1 where many were given."""

    code = "invalid_event"
    reason: str
    line: int | None = None

    def __str__(self) -> str:
        where = "" if self.line is None else f"line {self.line}: "
        return f"{where}{self.reason}"


@attrs.define(auto_exc=True, str=False)
class TooLarge(CallerError):
    """Something a client sent is larger than allowed; `line` counts from 1 where many events were given."""

    code = "too_large"
    what: str
    limit: int
    unit: str = "bytes"
    line: int | None = None

    def __str__(self) -> str:
        where = "" if self.line is None else f"line {self.line}: "
        return f"{where}{self.what} may have at most {self.limit} {self.unit}"


@attrs.define(auto_exc=True, str=False)
class InvalidMessage(CallerError):
    """A client's message cannot be read or taken.

    Attributes:
        message_id: the message's own id, where it could be read: the answer carries it.
        error_code: what the client is told: `invalid_message`, `invalid_json`, `unknown_type`, `invalid_name`.
    """

    code = "invalid_message"
    reason: str
    message_id: str | None = None
    error_code: str = "invalid_message"

    def __str__(self) -> str:
        return self.reason


@attrs.define(auto_exc=True, str=False)
class InvalidPosition(CallerError):
    """A `since` or Last-Event-ID is not an event id."""

    code = "invalid_position"
    text: str

    def __str__(self) -> str:
        return f"{self.text[:80]!r} is not an event id: give <milliseconds>-<counter>, as the stream's events carry it"


@attrs.define(auto_exc=True, str=False)
class UnknownKind(CallerError):
    """No such kind of object is served here."""

    code = "unknown_kind"
    kind: str
    known: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"no kind {self.kind[:80]!r} is served here; there are: {', '.join(sorted(self.known)) or 'none'}"


@attrs.define(auto_exc=True, str=False)
class UnknownObject(CallerError):
    """The kind says that this id does not exist."""

    code = "unknown_object"
    kind: str
    id: str

    def __str__(self) -> str:
        return f"there is no {self.kind} {self.id[:80]!r}"


@attrs.define(auto_exc=True, str=False)
class UnknownMethod(CallerError):
    """No such method, or it is not marked `@exposed`."""

    code = "unknown_method"
    kind: str
    method: str

    def __str__(self) -> str:
        return f"{self.kind} has no method {self.method[:80]!r} that may be called from here"


@attrs.define(auto_exc=True, str=False)
class InvalidArguments(CallerError):
    """The method does not take these arguments."""

    code = "invalid_arguments"
    kind: str
    method: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.method} does not take these arguments: {self.reason}"


@attrs.define(auto_exc=True, str=False)
class InvalidCapture(CallerError):
    """A capture file is not one, or not a whole one; `line` counts from 1 and is the head's."""

    code = "invalid_capture"
    file: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{where}: {self.reason}"


@attrs.define(auto_exc=True, str=False)
class NotPublishable(CallerError):
    """Only kinds with `publishable = True` take events from outside."""

    code = "not_publishable"
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} takes no events from outside; its class would say `publishable = True`"


@attrs.define(auto_exc=True, str=False)
class RequestRefused(CallerError):
    """An HTTP request is refused for its form: `status` is the answer's, `named` the code that clients see."""

    status: int
    named: str
    reason: str
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __str__(self) -> str:
        return self.reason


@attrs.define(auto_exc=True, str=False)
class CallCycle(CallerError):
    """A call would wait for the very turn that it is made from. `path` names the objects on the way round."""

    code = "call_cycle"
    path: tuple[str, ...]

    def __str__(self) -> str:
        return f"this call would wait for itself: {' -> '.join(self.path)}"


class LimitError(SwarmError):
    """A limit from the settings is reached; the same request may succeed later."""

    code = "limit"


@attrs.define(auto_exc=True, str=False)
class TooManyObjects(LimitError):
    """The kind has as many live objects as it may have. `retry_after_s` is a hint in seconds."""

    code = "too_many_objects"
    kind: str
    limit: int
    retry_after_s: int = 5

    def __str__(self) -> str:
        return f"there are {self.limit} live {self.kind} objects already; try again in {self.retry_after_s} s"


@attrs.define(auto_exc=True, str=False)
class TooManyTopics(LimitError):
    """One subscription names, or one journal holds, more topics than allowed."""

    code = "too_many_topics"
    limit: int

    def __str__(self) -> str:
        return f"no more than {self.limit} topics are allowed here"


@attrs.define(auto_exc=True, str=False)
class TooManySubscriptions(LimitError):
    """All readers together name as many topics as they may."""

    code = "too_many_subscriptions"
    limit: int

    def __str__(self) -> str:
        return f"the readers here name {self.limit} topics already; try again soon, or name fewer"


@attrs.define(auto_exc=True, str=False)
class Overloaded(LimitError):
    """The requests under way, or the answers on their way, hold as many bytes as they may."""

    code = "busy"
    limit: int
    retry_after_s: int = 1
    what: str = "requests under way"

    def __str__(self) -> str:
        return f"the {self.what} hold {self.limit} bytes already; try again in {self.retry_after_s} s"


@attrs.define(auto_exc=True, str=False)
class TooManyConnections(LimitError):
    """The service holds as many client connections as it may."""

    code = "too_many_connections"
    limit: int

    def __str__(self) -> str:
        return f"the service holds {self.limit} connections already; try again soon"


@attrs.define(auto_exc=True, str=False)
class TooManyTasks(LimitError):
    """One object has as many timers, feeds and background tasks as it may have."""

    code = "too_many_tasks"
    kind: str
    id: str
    limit: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.id} has {self.limit} timers, feeds and background tasks already"


@attrs.define(auto_exc=True, str=False)
class ReaderLagged(LimitError):
    """Events above `after`, up to and including `before`, fell off the journal before the reader took them."""

    code = "lagged"
    after: str
    before: str

    def __str__(self) -> str:
        return f"the events after {self.after} up to {self.before} are gone: read faster, or keep a longer journal"


@attrs.define(auto_exc=True, str=False)
class TooManyStreams(LimitError):
    """One WebSocket is subscribed to as many streams as it may be."""

    code = "too_many_streams"
    limit: int

    def __str__(self) -> str:
        return f"one connection subscribes to at most {self.limit} streams; unsubscribe from one, or open another"


class SwarmClosed(SwarmError):
    """The scope of the swarm has ended, or is ending; whether the turn took place is not known."""

    code = "closed"

    def __str__(self) -> str:
        return "the swarm is closing"


class ObjectError(SwarmError):
    """The object's own code, or its state, is in trouble."""

    code = "object_error"


@attrs.define(auto_exc=True, str=False)
class ObjectFailed(ObjectError):
    """The object crashed too often; a probe starts it again after `retry_after_s` seconds."""

    code = "object_failed"
    kind: str
    id: str
    reason: str
    retry_after_s: float = 30.0

    def __str__(self) -> str:
        return f"{self.kind}/{self.id} failed ({self.reason}); it is tried again in {self.retry_after_s:.0f} s"


@attrs.define(auto_exc=True, str=False)
class ObjectRestarted(ObjectError):
    """The object restarted before this turn's outcome was safe: nothing of the turn is kept.

    Where the store failed under it, that is as certain as the `StorageError` of the turn before it.
    """

    code = "object_restarted"
    kind: str
    id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.id} restarted before this was safe ({self.reason}); nothing of it is kept"


@attrs.define(auto_exc=True, str=False)
class TurnTimeout(ObjectError):
    """A turn ran past its deadline; its object restarts."""

    code = "turn_timeout"
    kind: str
    id: str
    turn: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.turn} of {self.kind}/{self.id} took longer than {self.seconds:g} s and was ended"


class PeerError(SwarmError):
    """The other end of a socket went away or broke the rules."""

    code = "peer_error"


@attrs.define(auto_exc=True, str=False)
class FeedUnavailable(PeerError):
    """An upstream could not be reached, fell silent, or went away."""

    code = "feed_unavailable"
    feed: str
    reason: str

    def __str__(self) -> str:
        return f"feed {self.feed}: {self.reason}"


@attrs.define(auto_exc=True, str=False)
class ServiceUnavailable(PeerError):
    """A client's service could not be reached, fell silent, or went away; coming back may help.

    Attributes:
        after_s: how long the service asks to be left alone; None where it did not say.
        uncertain: what was asked may have been done all the same.
    """

    code = "unavailable"
    reason: str
    after_s: float | None = None
    uncertain: bool = True

    def __str__(self) -> str:
        return self.reason


@attrs.define(auto_exc=True, str=False)
class ServiceRefused(PeerError):
    """A client's service said no, and asking again changes nothing."""

    code = "refused"
    reason: str

    def __str__(self) -> str:
        return self.reason


@attrs.define(auto_exc=True, str=False)
class ProtocolViolation(PeerError):
    """Bytes that the protocol spoken does not allow."""

    code = "protocol_violation"
    reason: str

    def __str__(self) -> str:
        return self.reason


@attrs.define(auto_exc=True, str=False)
class StorageError(SwarmError):
    """The store did not take or give what was asked of it.

    Of a turn that could not be stored nothing is kept, and nothing will be, unless `uncertain`: then nothing of it is
    there as long as the process lives, but if that ends before the store takes a commit again, the next one may find
    all of the turn.

    Attributes:
        reason: what the store said.
        too_much: what was asked is more than an object may keep, whenever it is asked.
        uncertain: the disk failed while the turn was being kept, and again as it was to be taken back.
    """

    code = "storage_error"
    reason: str
    too_much: bool = False
    uncertain: bool = False

    def __str__(self) -> str:
        more = "; if the process ends before it recovers, what was refused may be kept" if self.uncertain else ""
        return f"the store refused: {self.reason}{more}"


@attrs.define(auto_exc=True, str=False)
class SettingsError(SwarmError):
    """A setting is unknown, malformed or impossible. `where` names the file, option or variable."""

    code = "settings"
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@attrs.define(auto_exc=True, str=False)
class HostError(SwarmError):
    """The ASGI host runs without Trio, handles the lifespan wrongly, or is inside not what our connections know."""

    code = "host"
    reason: str

    def __str__(self) -> str:
        return self.reason


class Restart(Exception):
    """Raised by author code in a turn: undo the turn and start this object again from storage."""
