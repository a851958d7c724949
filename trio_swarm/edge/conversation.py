"""What a WebSocket client asks for, done in order, while what it says meanwhile is read; see `edge/websocket.py`.

One object serves all clients: all that belongs to one of them is in its record, and what was answered lately is known
here, by client and `messageId`, so that a repeated message is answered again and not done again. Only what was done
is remembered: a message that was answered with an error changed nothing, and may be tried again.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import ParamSpec

import trio

from trio_swarm.bounded.allowance import Allowance
from trio_swarm.bounded.recent import Recent
from trio_swarm.edge import subscribing
from trio_swarm.edge.answers import Message, Receive, count_answer, trouble
from trio_swarm.edge.draining import Changes
from trio_swarm.edge.publishing import make_draft
from trio_swarm.edge.requests import NOT_GIVEN, ask
from trio_swarm.edge.subscribing import Step
from trio_swarm.edge.websocket import Close, Gone, Line, Request, WebSocketClient, Work
from trio_swarm.errors import Overloaded
from trio_swarm.objects.directory import Directory
from trio_swarm.settings import REPEAT_BYTES, REPEAT_ENTRIES, REPEAT_S, Settings
from trio_swarm.wire import messages
from trio_swarm.wire.names import split_stream

P = ParamSpec("P")


class Conversation:
    """See the module."""

    def __init__(
        self, directory: Directory, settings: Settings, requests: Allowance, changes: Changes, answers: Allowance
    ) -> None:
        self._directory = directory
        self._changes = changes
        self._limits = settings.limits
        self._closing_s = settings.liveness.closing_s
        self._requests = requests  # bytes that all of them may hold while they are under way
        self._answers = answers  # bytes that those hold which clients have not taken
        self._answered: Recent[tuple[int, str], bytes] = Recent(REPEAT_ENTRIES, REPEAT_S, trio.current_time)

    async def run(self, client: WebSocketClient, receive: Receive) -> None:
        """Talk until one side closes. Returns when the client is gone, or has had time to answer our close."""
        while True:
            message = await receive()
            item = client.take(message)
            if item is not None and not isinstance(item, Close | Gone):
                with self._requests.share() as share:
                    line = Line(self._limits.body_bytes, share)
                    _put(line, item, message)
                    item = await self._work_off(client, line, receive)
            del message  # or it would be kept for as long as nothing else comes
            if isinstance(item, Close):
                await self._close(client, receive, item)
                return
            if isinstance(item, Gone):
                return

    async def _work_off(self, client: WebSocketClient, line: Line, receive: Receive) -> Close | Gone | None:
        """Do what is in line, and what comes meanwhile; returns what ends the conversation, if anything does."""
        while len(line) and line.end is None:  # what was received as the reader was cancelled is still in line
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_on, client, receive, line, nursery.cancel_scope)
                try:
                    while len(line):
                        await self._do(client, line.next())
                except trio.BrokenResourceError:
                    client.closing = True  # ended from here, or gone: the host will say so
                    line.clear()
                nursery.cancel_scope.cancel()
        return line.end

    async def _read_on(self, client: WebSocketClient, receive: Receive, line: Line, scope: trio.CancelScope) -> None:
        while line.end is None:
            message = await receive()
            item = client.take(message)
            if item is None:
                continue
            if isinstance(item, Close | Gone):
                line.end = item
            elif not _put(line, item, message):
                line.end = Close(4503, "too many requests under way")
        scope.cancel()

    async def _close(self, client: WebSocketClient, receive: Receive, end: Close) -> None:
        try:
            with trio.move_on_after(self._closing_s):
                await client.wait_ready()
            if client.transport.ready:
                await client.say_goodbye(end.code, end.reason, 0)
            else:
                client.abort(end.reason)
        except trio.BrokenResourceError:
            client.closing = True  # the host was first: a close of the client's own, or a fault in what came behind
        with trio.move_on_after(self._closing_s):
            while not isinstance(client.take(await receive()), Gone):
                pass

    async def _do(self, client: WebSocketClient, work: Work) -> None:
        """Answer one message.

        Raises:
            trio.BrokenResourceError: nobody is there to be answered.
        """
        if isinstance(work, bytes):
            await client.transport.send(client.pack(work))
            return
        key = None if work.message_id is None else (client.serial, work.message_id)
        known = None if key is None else self._answered.get(key)
        if known is not None:
            await client.transport.send(client.pack(known))
            return
        try:
            # A change is under way until its answer is out: a goodbye does not overtake it.
            with self._changes.one() if isinstance(work, messages.Publish | messages.Call) else nullcontext():
                answer = await self._answer(client, work)
        except trio.BrokenResourceError:
            raise
        except Exception as error:  # noqa: BLE001 - every error is an answer
            await client.transport.send(client.pack(_failure(work.message_id, error)))
            return
        if key is not None:
            if len(answer) > REPEAT_BYTES:
                answer = messages.error(work.message_id, "already_done", "this was done; its answer is not kept")
            self._answered.put(key, answer)

    async def _answer(self, client: WebSocketClient, work: Request) -> bytes:
        """Do what is asked, and write the answer; gives it back to be remembered."""
        message_id = work.message_id
        match work:
            case messages.Subscribe():
                return await self._subscribe(client, work)
            case messages.BatchSubscribe():
                return await self._subscribe_all(client, work)
            case messages.Unsubscribe():
                answer = subscribing.end(client, work.data, message_id)
            case messages.BatchUnsubscribe():
                ended = [_attempt(subscribing.end, client, each, None) for each in work.data.subscriptions]
                answer = messages.batch_unsubscribed(message_id, ended)
            case messages.Publish():
                answer = await self._publish(work)
            case messages.Call():
                called = work.data
                reference = self._directory.get(*split_stream(called.stream))
                answer = messages.result(message_id, await ask(reference, called.method, called.arguments))
                return await self._give(client, message_id, answer)
            case messages.Ping():
                answer = messages.pong(message_id)
        await client.transport.send(client.pack(answer))
        return answer

    async def _give(self, client: WebSocketClient, message_id: str | None, answer: bytes) -> bytes:
        """Write a result of whatever size; gives it back, or what was said in its place."""
        with self._answers.share() as share:
            try:
                count_answer(share, client.weigh(answer))
            except Overloaded:
                answer = messages.error(message_id, "already_done", NOT_GIVEN)
            await client.transport.send(client.pack(answer))
            if share.held and not client.transport.ready:
                await client.transport.drained()
        return answer

    async def _publish(self, work: messages.Publish) -> bytes:
        # The publication's own messageId is known to the object, whoever sends it; the message's is this client's
        # alone, because what two clients count up from 1 must not meet.
        reference = self._directory.get(*split_stream(work.data.stream))
        draft = make_draft(work.data, self._limits.event_bytes)
        published = await reference.publish([draft], message_id=work.data.message_id)
        return messages.published(work.message_id, id=str(published.id), count=published.count)

    async def _subscribe(self, client: WebSocketClient, work: messages.Subscribe) -> bytes:
        with self._answers.share() as share:
            step = await subscribing.ask(client, self._directory, self._limits, work.data)
            await step.open(client, share)
            await client.wait_ready()
            # From here to `begin` nothing waits.
            answer = step.settle(work.message_id)
            client.transport.write(client.pack(answer))
            await _begin(client, [step])
            if share.held and not client.transport.ready:
                await client.transport.drained()
        return answer

    async def _subscribe_all(self, client: WebSocketClient, work: messages.BatchSubscribe) -> bytes:
        steps: list[Step | bytes] = []
        with self._answers.share() as share:
            for each in work.data.subscriptions:
                try:
                    steps.append(await subscribing.ask(client, self._directory, self._limits, each))
                except Exception as error:  # noqa: BLE001 - one that fails stops no other
                    steps.append(_failure(None, error))
            for place, step in enumerate(steps):
                if isinstance(step, Step):
                    try:
                        await step.open(client, share)
                    except Overloaded as error:
                        steps[place] = _failure(None, error)
            await client.wait_ready()
            # From here to `begin` nothing waits.
            answer = messages.batch_subscribed(
                work.message_id, [step if isinstance(step, bytes) else _attempt(step.settle, None) for step in steps]
            )
            client.transport.write(client.pack(answer))
            await _begin(client, [step for step in steps if isinstance(step, Step)])
            if share.held and not client.transport.ready:
                await client.transport.drained()
        return answer


async def _begin(client: WebSocketClient, steps: Sequence[Step]) -> None:
    for also in [said for step in steps if (said := step.begin()) is not None]:
        await client.transport.send(client.pack(also))


def _attempt(act: Callable[P, bytes], *args: P.args, **kwargs: P.kwargs) -> bytes:
    """One of a batch: what it raises is its answer."""
    try:
        return act(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - one that fails stops no other
        return _failure(None, error)


def _failure(message_id: str | None, error: Exception) -> bytes:
    problem = trouble(error)
    return messages.error(message_id, problem.code, problem.message)


def _put(line: Line, item: Work, message: Message) -> bool:
    """Put in line what a message asks, or the answer that there is no room for it."""
    try:
        return line.put(item, message.get("text") or "")
    except Overloaded as error:
        message_id = None if isinstance(item, bytes) else item.message_id
        line.put_answer(_failure(message_id, error))
        return True
