"""What a person means with a URL. Pure.

    http://host/kind/id             the object, as server-sent events; `localhost:8000/kind/id` too
    http://host/v1/kind/id[/events] the same in full; `?topics=…&since=…` as the service knows them
    ws://host/kind/id               the object, over a WebSocket
    ws://host/v1/ws                 the service's WebSocket; streams are named beside it
    http://host                     the service; a stream is named beside it
    any other http: or https: URL   server-sent events of whoever is there, asked for as it is

Before `/v1` may stand a prefix under which the service is mounted. A path of two parts is `kind/id` unless the second
is `events`; whoever means such a path of another server says `exact`. A name and a password in a URL become a header,
and appear nowhere else.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

import attrs

from trio_swarm.errors import InvalidName, SettingsError
from trio_swarm.journal.event import EventId
from trio_swarm.wire.messages import Subscription
from trio_swarm.wire.names import check_id, check_kind, check_topic, split_stream

_SCHEMES = {"http", "https", "ws", "wss"}
_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")
_HOST = re.compile(r"[A-Za-z0-9._~:%-]+")
_USER = re.compile(r"(^|//)[^/?#]*@")
_URL_SAFE = "/?:@!$&'()*+,;=-._~%[]"  # what stays of a URL that is not ours; the rest is percent-encoded


@attrs.frozen
class EventsAddress:
    """Server-sent events. `stream` None: it is no service of ours that is asked."""

    url: str
    stream: str | None
    since: str | None
    envelope: bool
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class SocketAddress:
    """A WebSocket, and the streams that are wanted of it."""

    url: str
    subscriptions: tuple[Subscription, ...]
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class PublishAddress:
    """Where an object takes events."""

    url: str
    stream: str
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class _Url:
    text: str  # as it was given, without a password
    scheme: str
    host: str  # with its port
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]

    @property
    def secure(self) -> bool:
        return self.scheme in {"https", "wss"}

    @property
    def is_socket(self) -> bool:
        return self.scheme in {"ws", "wss"}

    def http(self, path: str, query: str = "") -> str:
        return f"{'https' if self.secure else 'http'}://{self.host}{path}" + (f"?{query}" if query else "")

    def socket(self, path: str, query: str = "") -> str:
        return f"{'wss' if self.secure else 'ws'}://{self.host}{path}" + (f"?{query}" if query else "")


@attrs.frozen
class _Place:
    """What a path names: an object, the WebSocket, or only the service below `prefix`."""

    prefix: str
    kind: str = ""
    id: str = ""

    @property
    def stream(self) -> str:
        return f"{self.kind}/{self.id}"

    def path(self, action: str) -> str:
        return f"{self.prefix}/v1/{self.kind}/{quote(self.id, safe='')}/{action}"


def find_events(
    text: str,
    *,
    streams: Sequence[str] = (),
    topics: Sequence[str] | None = None,
    since: str | None = None,
    exact: bool = False,
) -> EventsAddress | SocketAddress:
    """What is to be read: a URL, with what is said beside it.

    Args:
        text: the URL.
        streams: `kind/id`, for a URL that names none, or more of them on a WebSocket.
        topics: of each stream; None is all.
        since: the id to begin after.
        exact: the URL is asked for as it is.

    Raises:
        SettingsError: it cannot be; it says what to write.
        InvalidName, InvalidPosition: a part of it breaks the rules.
    """
    url = _read(text)
    place = None if exact else _find(url.path, or_others=not url.is_socket)
    if place is None:
        if url.is_socket and not exact:
            raise SettingsError(url.text, "names no stream: write ws://host/kind/id, or ws://host/v1/ws with --stream")
        if not url.is_socket:
            return _foreign(url, streams, topics, since)
    query, asked = _asked(url.query)
    if topics is not None and asked.topics is not None:
        raise SettingsError(url.text, "says `topics`, and --topics does; leave one out")
    if since is not None and asked.since is not None:
        raise SettingsError(url.text, "says `since`, and --since does; leave one out")
    named = list(streams)
    if place is not None and place.kind:
        named.insert(0, place.stream)
    wanted = [_wanted(stream, asked, topics, since) for stream in dict.fromkeys(named)]
    if not wanted:
        raise SettingsError(url.text, "names no stream: add /kind/id to it, or --stream kind/id")
    if url.is_socket:
        path = url.path if exact or place is None else f"{place.prefix}/v1/ws"
        return SocketAddress(url.socket(path, query), tuple(wanted), url.headers)
    if len(wanted) > 1:
        raise SettingsError(url.text, "gives one stream; for several say ws:// or wss:// instead")
    return _events(url, query, place.prefix if place is not None else "", wanted[0])


def find_publish(text: str) -> PublishAddress:
    """Where to publish: any URL that names an object, in any of its forms.

    Raises:
        SettingsError: it names none; it says what to write.
        InvalidName: a part of it breaks the rules.
    """
    url = _read(text)
    place = _find(url.path, or_others=False)
    if place is None or not place.kind:
        raise SettingsError(url.text, "names no object to publish into: write http://host/kind/id")
    return PublishAddress(url.http(place.path("publish"), _asked(url.query)[0]), place.stream, url.headers)


def _read(text: str) -> _Url:
    shown = "".join(each if each.isprintable() else "?" for each in _USER.sub(r"\1", text)[:200])
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
        name = (parts.hostname or "").encode("idna").decode()
    except ValueError as error:
        raise SettingsError(shown, f"is not a URL: {error}") from error
    if parts.scheme not in _SCHEMES or not _HOST.fullmatch(name) or port == 0 or not text.isprintable():
        raise SettingsError(shown, "is not a URL of a service: give http://HOST…, https://, ws:// or wss://")
    host = f"[{name}]" if ":" in name else name
    headers: tuple[tuple[str, str], ...] = ()
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = (("authorization", f"Basic {b64encode(pair.encode()).decode()}"),)
    path = quote(parts.path, safe=_URL_SAFE)
    query = quote(parts.query, safe=_URL_SAFE)
    return _Url(shown, parts.scheme, host if port is None else f"{host}:{port}", path, query, headers)


def _find(path: str, *, or_others: bool) -> _Place | None:
    """What a path names by our rules; None where it is not one of ours. `or_others`: it may well be somebody else's."""
    segments = path.strip("/").split("/")
    if segments == [""]:
        return _Place("")
    for index, segment in enumerate(segments):
        if segment != "v1":
            continue
        prefix = "".join(f"/{each}" for each in segments[:index])
        match segments[index + 1 :]:
            case [] if index == 0 or len(segments) != 2:
                return _Place(prefix)
            case ["ws"]:
                return _Place(prefix)
            case [kind, id_] | [kind, id_, "events" | "publish" | "history"]:
                return _Place(prefix, check_kind(kind), _id(id_))
    if len(segments) == 2 and not (or_others and segments[1] == "events") and _KIND.fullmatch(segments[0]):
        return _Place("", segments[0], _id(segments[1]))
    return None


def _id(segment: str) -> str:
    try:
        return check_id(unquote_to_bytes(segment).decode())
    except UnicodeDecodeError:
        raise InvalidName("id", segment, "it is not UTF-8") from None


def _asked(query: str) -> tuple[str, Subscription]:
    """What a query says to a service of ours, and the rest of it."""
    rest: list[str] = []
    topics: list[str] | None = None
    since: str | None = None
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if key == "topics":
            topics = (topics or []) + [unquote(each.replace("+", " ")) for each in value.split(",")]
        elif key == "since":
            since = unquote(value)
        elif part and key != "format":
            rest.append(part)
    return "&".join(rest), Subscription("any/any", None if topics is None else tuple(topics), since)


def _wanted(stream: str, asked: Subscription, topics: Sequence[str] | None, since: str | None) -> Subscription:
    split_stream(stream)
    since = asked.since if since is None else since
    if since is not None:
        EventId.parse(since)
    chosen = asked.topics if topics is None else tuple(topics)
    for topic in chosen or ():
        check_topic(topic)
    return Subscription(stream, chosen, since)


def _events(url: _Url, query: str, prefix: str, wanted: Subscription) -> EventsAddress:
    kind, id_ = split_stream(wanted.stream)
    parts = [query] if query else []
    if wanted.topics is not None:
        parts.append("topics=" + ",".join(quote(topic, safe="") for topic in wanted.topics))
    parts.append("format=envelope")
    address = url.http(_Place(prefix, kind, id_).path("events"), "&".join(parts))
    return EventsAddress(address, wanted.stream, wanted.since, envelope=True, headers=url.headers)


def _foreign(url: _Url, streams: Sequence[str], topics: Sequence[str] | None, since: str | None) -> EventsAddress:
    if streams or topics is not None:
        raise SettingsError(
            url.text, "is asked for as it is; --stream and --topics need a service of ours, http://host/kind/id"
        )
    if since is not None and not since.isprintable():
        raise SettingsError("--since", f"{since!r} is not an id that can be sent")
    if since is not None and since != since.strip():  # which a header's value has not, so it would be another id
        raise SettingsError("--since", f"{since!r} has white space at an edge, which cannot be sent")
    return EventsAddress(url.http(url.path or "/", url.query), None, since, envelope=False, headers=url.headers)
