"""Subscriptions of a WebSocket: in three moves, so that an answer always comes before the events it tells of.

- ask: the object is asked for a subscription, which is held; or the stream is read already and gains topics;
- open: wait until it is known where it begins;
- settle: say so, and from here to `begin` nothing may wait.
"""

import attrs
import trio

from trio_swarm.bounded.allowance import Share
from trio_swarm.edge.answers import count_answer
from trio_swarm.edge.queries import check_topics
from trio_swarm.edge.websocket import WebSocketClient
from trio_swarm.errors import Overloaded, RequestRefused, TooManyStreams, TooManyTopics
from trio_swarm.fanout.subscription import Opening, Subscription
from trio_swarm.journal.event import EventId
from trio_swarm.objects.directory import Directory
from trio_swarm.settings import Limits
from trio_swarm.wire import messages
from trio_swarm.wire.names import split_stream


@attrs.define
class Step:
    """One subscription that is asked for, and not yet answered. `is_new`: the stream was not read before."""

    stream: str
    topics: frozenset[str] | None
    since: EventId | None
    subscription: Subscription
    is_new: bool
    opening: Opening | None = None

    async def open(self, client: WebSocketClient, share: Share) -> None:
        """Learn where a new subscription begins, and count its snapshot.

        Raises:
            RequestRefused: the stream was ended meanwhile.
            Overloaded: the answers on their way hold too much; the subscription is ended.
        """
        if self.is_new:
            try:
                self.opening = await self.subscription.opened()
            except trio.ClosedResourceError:
                raise RequestRefused(503, "closed", "the stream was ended before it began") from None
            try:
                count_answer(share, client.weigh(self.opening.snapshot or b""))
            except Overloaded:
                self.subscription.close()
                client.subscriptions.pop(self.stream, None)
                raise

    def settle(self, message_id: str | None) -> bytes:
        """The answer. Never waits; topics are added only now, because their events may follow at once.

        Raises:
            RequestRefused: too many replays are under way on this stream, or it was ended meanwhile.
        """
        opening = self.opening
        if self.subscription.closed:
            raise RequestRefused(503, "closed", "the stream was ended before it began")
        if opening is None:
            try:
                opening = self.subscription.add_topics(self.topics, self.since)
            except trio.WouldBlock:
                reason = "too many replays are under way on this stream; try again when they are over"
                raise RequestRefused(429, "limit", reason) from None
        if opening.snapshot is not None:  # it is in the answer now
            self.opening = attrs.evolve(opening, snapshot=None, encoded={})
        return messages.subscribed(
            message_id,
            stream=self.stream,
            id=str(opening.id),
            recovered=opening.recovered,
            gap=None if opening.gap is None else (str(opening.gap.after), str(opening.gap.before)),
            snapshot=opening.snapshot,
        )

    def begin(self) -> bytes | None:
        """Let the events follow; gives what else there is to say."""
        self.subscription.start()
        if self.opening is None or self.opening.error is None:
            return None
        return messages.error(None, "snapshot_failed", f"{self.stream} gave no snapshot; it goes on without one")


async def ask(client: WebSocketClient, directory: Directory, limits: Limits, wanted: messages.Subscription) -> Step:
    """Ask for one subscription.

    Raises:
        SwarmError: it cannot be had.
    """
    topics = check_topics(wanted.topics, limits.topics_per_subscription)
    since = None if wanted.since is None else EventId.parse(wanted.since)
    known = client.subscriptions.get(wanted.stream)
    if known is not None and known.closed:
        del client.subscriptions[wanted.stream]
        known = None
    if known is not None:
        together = topics and known.topics and topics | known.topics
        if together and len(together) > limits.topics_per_subscription:
            raise TooManyTopics(limits.topics_per_subscription)
        return Step(wanted.stream, topics, since, known, is_new=False)
    if len(client.subscriptions) >= limits.streams_per_connection:
        raise TooManyStreams(limits.streams_per_connection)
    reference = directory.get(*split_stream(wanted.stream))
    subscription = await reference.subscribe(client.transport, encoding=client.encoding, topics=topics, since=since)
    if client.closing:
        subscription.close()
        raise trio.BrokenResourceError
    client.subscriptions[wanted.stream] = subscription
    return Step(wanted.stream, topics, since, subscription, is_new=True)


def end(client: WebSocketClient, wanted: messages.Unsubscription, message_id: str | None) -> bytes:
    """Unsubscribe from a stream, or from some of its topics. What is not subscribed to needs no ending.

    Raises:
        RequestRefused: all topics are read, so that none can be taken away.
    """
    subscription = client.subscriptions.get(wanted.stream)
    if subscription is not None:
        if wanted.topics is None:
            subscription.close()
        elif subscription.topics is None:
            reason = f"all topics of {wanted.stream} are subscribed to; unsubscribe from the stream as a whole"
            raise RequestRefused(400, "bad_request", reason)
        else:
            subscription.remove_topics(frozenset(wanted.topics))
        if subscription.closed:
            client.subscriptions.pop(wanted.stream, None)
    return messages.unsubscribed(message_id, stream=wanted.stream)
