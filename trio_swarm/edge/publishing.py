"""What clients publish over HTTP: one event as JSON, or many, each a line of it; checked, and made into drafts."""

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from trio_swarm.errors import InvalidEvent, InvalidMessage, RequestRefused, TooLarge
from trio_swarm.journal.event import Draft
from trio_swarm.wire.messages import Publication, parse_publication

JSON = "application/json"
NDJSON = "application/x-ndjson"
MOST_EVENTS = 10_000  # in one request: they are one turn, and reading them holds the loop for some 20 ms


def read_publications(body: bytes, media: str, event_bytes: int) -> tuple[list[Draft], str | None]:
    """The drafts in a request's body, and the message id by which a repeat of it is known.

    Where lines have message ids of their own, all of them together name the request: a repeat repeats them all.

    Raises:
        RequestRefused: neither JSON nor NDJSON.
        InvalidMessage, InvalidEvent, TooLarge: the body is not what it should be; for NDJSON the line is named.
    """
    if media == JSON:
        publication = parse_publication(body)
        return [make_draft(publication, event_bytes)], publication.message_id
    if media != NDJSON:
        # Whatever a page elsewhere can send without asking first (a form, plain text) is not taken either.
        raise RequestRefused(415, "unsupported_media_type", f"one event is {JSON}, many are {NDJSON}")
    drafts: list[Draft] = []
    names: list[str] = []
    for number, line in enumerate(body.split(b"\n"), 1):
        if not line.strip():
            continue
        if len(drafts) == MOST_EVENTS:
            raise TooLarge("a request", MOST_EVENTS, "events", number)
        try:
            publication = parse_publication(line)
        except InvalidMessage as error:
            raise InvalidEvent(str(error), number) from error
        drafts.append(make_draft(publication, event_bytes, number))
        names.append(publication.message_id or "")
    if not drafts:
        raise InvalidEvent("there is no event in this request")
    return drafts, _together(names)


def make_draft(publication: Publication, event_bytes: int, line: int | None = None) -> Draft:
    """What a turn takes.

    Raises:
        TooLarge: its data has more than `event_bytes`.
    """
    data = bytes(publication.data)
    if len(data) > event_bytes:
        raise TooLarge("an event's data", event_bytes, line=line)
    return Draft(data, publication.topic, publication.type, publication.key, publication.durable)


def _together(names: Sequence[str]) -> str | None:
    if not any(names):
        return None
    if len(names) == 1:
        return names[0]
    return sha256(msgspec.json.encode(names)).hexdigest()
