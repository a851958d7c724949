"""`GET /v1/{kind}/{id}/events`: server-sent events.

A stream's life: the object is asked for a subscription (while an error can still be a status); the response begins;
the greeting goes out (`hello`, then `gap` or `snapshot` where there is one); the subscription starts, and from then
the broadcaster writes. The client's one task waits in `receive` until the client goes away or the stream is ended
from here.
"""

from contextlib import suppress
from functools import partial

import msgspec
import structlog
import trio

from trio_swarm.bounded.allowance import Allowance, Share
from trio_swarm.edge.answers import Receive, Scope, Send, count_answer, count_shared
from trio_swarm.edge.clients import Client, Clients, House
from trio_swarm.edge.queries import Wanted
from trio_swarm.errors import RequestRefused
from trio_swarm.fanout.encoding import SSE, SSE_CHUNKED, SSE_ENVELOPE, SSE_ENVELOPE_CHUNKED, Encoding
from trio_swarm.fanout.subscription import Subscription
from trio_swarm.objects.reference import Reference
from trio_swarm.wire.sse import chunk, encode_event

_log = structlog.get_logger("trio_swarm.edge")

# `close`: after a stream there is no second request, and what a client sends behind this one ends it.
HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"connection", b"close"),
]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS}
END = {"type": "http.response.body", "body": b"", "more_body": False}

_NO_SNAPSHOT = msgspec.json.encode(
    {"code": "snapshot_failed", "message": "the object gave no snapshot; the stream goes on without one"}
)

_ENCODINGS: dict[tuple[bool, bool], Encoding] = {  # whether in envelopes, whether direct
    (False, True): SSE_CHUNKED,
    (True, True): SSE_ENVELOPE_CHUNKED,
    (False, False): SSE,
    (True, False): SSE_ENVELOPE,
}


class SseClient(Client):
    """One response that does not end by itself."""

    __slots__ = ("begun", "closing", "greeting", "snapshot", "subscription")
    kind = "sse"

    def __init__(self, scope: Scope, send: Send, house: House) -> None:
        super().__init__(scope, send, house)
        self.subscription: Subscription | None = None
        self.begun = False  # the response has
        self.closing = False  # goodbye is being said
        self.greeting = b""  # until it is written
        self.snapshot: bytes | None = None  # likewise, shared

    @property
    def streams(self) -> list[str]:
        """See `Client.streams`."""
        return [] if self.subscription is None else [self.subscription.stream.name]

    @property
    def readers(self) -> list[Subscription]:
        """See `Client.readers`."""
        return [] if self.subscription is None else [self.subscription]

    def beat(self, now: float) -> None:  # noqa: ARG002 - silence is the subscription's own
        """A heartbeat, where nothing was written since the last one."""
        if self.subscription is not None:
            self.subscription.heartbeat()

    def is_silent(self, now: float, seconds: float) -> bool:  # noqa: ARG002
        """Never: a reader of events has nothing to say."""
        return False

    def close_subscriptions(self) -> None:
        """See `Client.close_subscriptions`."""
        if self.subscription is not None:
            self.subscription.close()

    async def say_goodbye(self, code: int, reason: str, retry_ms: int) -> None:  # noqa: ARG002 - SSE has no codes
        """Tell when to come back, and end the response."""
        self.close_subscriptions()
        if not self.begun:
            return  # its task has now been told that the subscription is closed, and answers so
        if self.closing:
            return
        self.closing = True
        try:
            if retry_ms:
                retry = b"retry: %d\n\n" % retry_ms
                await self.transport.send(chunk(retry) if self.is_direct else retry)
            await self.transport.drained()
        except trio.BrokenResourceError:
            return
        self.transport.detach()
        await self.send(END)

    async def begin(self, reference: Reference, wanted: Wanted, name: str, share: Share) -> None:
        """Subscribe, learn where the stream begins, and begin the response.

        Raises:
            SwarmError: the object cannot be subscribed to; nothing has been sent.
        """
        encoding = _ENCODINGS[wanted.envelope, self.is_direct]
        subscription = await reference.subscribe(
            self.transport, encoding=encoding, topics=wanted.topics, since=wanted.since
        )
        self.subscription = subscription
        try:
            opening = await subscription.opened()
        except trio.ClosedResourceError:
            raise RequestRefused(503, "shutting_down", "the service is shutting down; try again soon") from None
        stream = subscription.stream.name
        self.snapshot = opening.encode_snapshot(stream, encoding)
        if self.snapshot is not None:
            if self.is_direct:
                count_shared(share, self.snapshot)
            else:
                count_answer(share, 2 * len(self.snapshot))  # the host makes a copy
        self.begun = True
        await self.send(START)
        if self.connection is not None:
            if self.is_direct and not self.connection.begun:  # a middleware holds the head back, or has changed it
                self.go_through_host()
                encoding = _ENCODINGS[wanted.envelope, False]
                subscription.sink, subscription.encoding = self.transport, encoding
                self.snapshot = opening.encode_snapshot(stream, encoding)
            self.connection.streaming()
        self.greeting = encoding.greeting(opening.id, name, opening.gap, is_all=self.snapshot is None)
        if opening.error is not None:
            problem = encode_event(_NO_SNAPSHOT, id=None, event="error")
            self.greeting += chunk(problem) if self.is_direct else problem

    async def stay(self, receive: Receive, share: Share) -> None:
        """Greet, let the events follow, and wait for the end."""
        try:
            greeting, self.greeting = self.greeting, b""
            await self.transport.send(greeting)
            snapshot, self.snapshot = self.snapshot, None
            if snapshot is not None:
                await self.transport.send(snapshot)
            del snapshot  # it may be large, and this frame lives as long as the client
            if self.subscription is not None:
                self.subscription.start()
            if not self.transport.ready:
                with suppress(trio.BrokenResourceError):  # what there is to be done about it is told below
                    await self.transport.drained()
            share.give()
            while (await receive())["type"] != "http.disconnect":
                pass
        except trio.BrokenResourceError:
            pass  # the client is gone; whoever ended it knows why
        except Exception:  # noqa: BLE001 - the response has begun: there is no better answer than its end
            _log.exception("stream_failed", streams=self.streams)
            self.abort("internal error")


async def serve(
    client: SseClient,
    clients: Clients,
    reference: Reference,
    wanted: Wanted,
    receive: Receive,
    name: str,
    answers: Allowance,
) -> None:
    """Serve one stream to its end.

    Raises:
        SwarmError: it could not begin; nothing has been sent.
    """
    clients.enter(client)
    try:
        with answers.share() as share:
            await client.begin(reference, wanted, name, share)
            if client.is_direct:
                await client.stay(receive, share)
            else:
                await client.beside_writer(partial(client.stay, receive, share))
    finally:
        clients.leave(client)
