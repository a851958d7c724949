"""One line for each thing that happened: for people, or as JSON.

What comes from a server is not trusted with a terminal: in the plain form whatever does not print is escaped, in JSON's
own way, so that JSON stays JSON.
"""

from contextlib import suppress

import click
import msgspec

from trio_swarm.client.happenings import Event, Gap, Problem, Snapshot, Status

Told = Event | Snapshot | Gap | Status | Problem

_encode = msgspec.json.encode


class _FeedState(msgspec.Struct):
    feed: str
    state: str
    reason: str | None = None


def json_line(told: Told) -> bytes:
    """One JSON object: `stream`, `id` and `topic` where they are known, `event`, `data`.

    `data` is JSON where the event's data is, else a string.
    """
    fields: dict[str, object] = {}
    if told.stream is not None:
        fields["stream"] = told.stream
    match told:
        case Event(id=id_, topic=topic, type=type_, data=data):
            fields |= {name: value for name, value in (("id", id_), ("topic", topic)) if value is not None}
            fields |= {"event": type_, "data": _json(data)}
        case Snapshot(id=id_, data=data):
            fields |= {"id": id_, "event": "snapshot", "data": _json(data)}
        case Gap(after=after, before=before):
            fields |= {"event": "gap", "data": {"after": after, "before": before}}
        case Status(data=data):
            fields |= {"event": "status", "data": _json(data)}
        case Problem(code=code, message=message):
            fields |= {"event": "error", "data": {"code": code, "message": message}}
    return _encode(fields) + b"\n"


def plain_line(told: Told, at: str, *, with_stream: bool) -> bytes:
    """`TIME [STREAM] [TOPIC] EVENT DATA`, two spaces between them; the topic `""` is left out."""
    parts = [at]
    if with_stream and told.stream is not None:
        parts.append(told.stream)
    match told:
        case Event(topic=topic, type=type_, data=data):
            parts += [*([topic] if topic else []), type_, _compact(data)]
        case Snapshot(data=data):
            parts += ["snapshot", _compact(data)]
        case Gap() | Status() | Problem():
            parts.append(note(told))
    return "  ".join(map(printable, parts)).encode() + b"\n"


def note(told: Gap | Status | Problem) -> str:
    """What is no event, in words."""
    match told:
        case Gap(after=after, before=before):
            return f"gap: what came after {after}, up to {before}, is gone"
        case Status(data=data):
            return _state(data)
        case Problem(message=message):
            return message


def again_in(seconds: float) -> str:
    """When a command will try again."""
    said = f"{seconds:.1f}"
    return "trying again at once" if said == "0.0" else f"trying again in {said} s"


def say(sentence: str) -> None:
    """Tell the person, beside what the command is asked for."""
    with suppress(OSError):  # nobody listens
        click.echo(printable(sentence), err=True)


def printable(text: str) -> str:
    """The text with everything escaped that could steer a terminal or break the line."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _state(data: str) -> str:
    """The state of a feed, where it is told as a service of ours tells it."""
    try:
        told = msgspec.json.decode(data, type=_FeedState)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return f"status: {_compact(data)}"
    return f"feed {told.feed} is {told.state}" + (f": {told.reason}" if told.reason else "")


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{int.from_bytes(units[at : at + 2]):04x}" for at in range(0, len(units), 2))


def _json(data: str) -> object:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return data
    return msgspec.Raw(msgspec.json.format(data.encode(), indent=-1))


def _compact(data: str) -> str:
    """JSON without the white space between its parts; other text as it is."""
    json = _json(data)
    return bytes(json).decode() if isinstance(json, msgspec.Raw) else data
