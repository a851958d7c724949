"""The edge as an ASGI application: what comes in by HTTP or WebSocket, and where it goes.

Streams go from here straight to their handler: no framework's frames stand around a client that waits. Everything
else under `/v1` is answered once; what is not ours is the pages', by Starlette. Every error becomes an answer here,
by one table.

`run()` holds what serves all clients: the task that waits for full sockets, liveness, and the watch for the host's
end. `drain()` ends every stream in its protocol's words, and then by force.
"""

import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import structlog
import trio
from starlette.routing import BaseRoute, Router

from trio_swarm.bounded.allowance import Allowance
from trio_swarm.edge import requests, sse
from trio_swarm.edge.access import Answer, Answered
from trio_swarm.edge.answers import Message, Receive, Scope, Send, send_trouble, trouble
from trio_swarm.edge.clients import Client, Clients, ClientStatistics
from trio_swarm.edge.conversation import Conversation
from trio_swarm.edge.draining import Changes, say_goodbyes, shutting_down
from trio_swarm.edge.liveness import Liveness
from trio_swarm.edge.metrics import metrics
from trio_swarm.edge.paths import METHODS, Action, Target, find
from trio_swarm.edge.queries import read_wanted
from trio_swarm.edge.readability import Readability
from trio_swarm.edge.websocket import WebSocketClient
from trio_swarm.edge.writability import Writability
from trio_swarm.errors import RequestRefused, TooManyConnections
from trio_swarm.health.metrics import MetricsPage
from trio_swarm.objects.directory import Directory
from trio_swarm.settings import Settings

Handler = Callable[["Edge", Scope, Receive, Send, Target], Awaitable[None]]

_HANDLERS: dict[Action, Handler] = {
    "publish": requests.publish,
    "call": requests.call,
    "history": requests.history,
    "healthz": requests.healthz,
    "readyz": requests.readyz,
    "metrics": metrics,
}
_CHANGES: frozenset[Action] = frozenset({"publish", "call"})
POLITE_SHARE = 0.4  # of `shutdown_s`: then whoever is still there is ended by force, before the host does it
TAKE_S = 3.0  # for one client that is sent away, to take what is on its way; then `closing_s` to close

_NEVER = frozenset({"CONNECT", "TRACE"})  # of whatever page: this is no proxy, and no echo
_log = structlog.get_logger("trio_swarm.edge")


class Edge:
    """See the module.

    Args:
        directory: the objects.
        settings: limits, liveness, stall.
        pages: what is served beside the API, such as `/`.
        rng: for the jitter of `retry`.
    """

    def __init__(
        self,
        directory: Directory,
        settings: Settings,
        pages: Sequence[BaseRoute] = (),
        *,
        rng: random.Random | None = None,
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.clients = Clients(settings.limits.connections)
        self.answered = Answered()
        self.metrics: MetricsPage | None = None  # set by whoever knows all statistics
        self.writability = Writability()
        self.readability = Readability()
        self.requests = Allowance(settings.limits.bodies_bytes)  # bytes that requests under way hold
        self.answers = Allowance(settings.limits.answers_bytes)  # bytes of large answers that clients have not taken
        self._changes = Changes()
        self._conversation = Conversation(directory, settings, self.requests, self._changes, self.answers)
        self._pages = Router(routes=list(pages), redirect_slashes=False, default=_nothing_here)
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._run_name = secrets.token_hex(4)  # so that a client's name differs from those of the run before
        self._serial = 0
        self._draining = False
        self._nursery: trio.Nursery | None = None
        self._contexts: list[Any] = []

    @property
    def accepting(self) -> bool:
        """Whether new clients are taken."""
        return self._nursery is not None and not self._draining

    # The application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one `http` or `websocket` scope."""
        if scope["type"] not in {"http", "websocket"}:
            raise RuntimeError(f"the edge serves http and websocket, not {scope['type']}")
        answer = Answer(send)
        try:
            if scope["type"] == "http":
                await self._http(scope, receive, answer)
            else:
                await self._websocket(scope, receive, answer)
        finally:
            self.answered.note(scope, answer)

    async def _http(self, scope: Scope, receive: Receive, send: Answer) -> None:
        begun = False
        try:
            target = find(scope)
            send.action = target.action
            _check_method(scope, target)
            handler = _HANDLERS.get(target.action)
            if target.action == "events":
                await self._events(scope, receive, send, target)
            elif target.action in _CHANGES and handler is not None:
                with self._changes.one():
                    await handler(self, scope, receive, send, target)
            elif handler is not None:
                await handler(self, scope, receive, send, target)
            else:

                async def send_on(message: Message) -> None:
                    nonlocal begun
                    begun = True
                    await send(message)

                await self._pages(scope, receive, send_on)
        except Exception as error:  # noqa: BLE001 - `trouble` logs what is not expected
            problem = trouble(error)
            if not begun:
                await send_trouble(send, problem)

    async def _events(self, scope: Scope, receive: Receive, send: Answer, target: Target) -> None:
        _check_version(scope)
        wanted = read_wanted(scope, self.settings.limits.topics_per_subscription)
        reference = self.directory.get(target.kind, target.id)
        if scope["method"] == "HEAD":
            await send(sse.START)
            await send(sse.END)
            return
        if not self.accepting:
            raise shutting_down("streams")
        client = send.client = sse.SseClient(scope, send, self)
        name = f"{self._run_name}-{client.serial}"
        await sse.serve(client, self.clients, reference, wanted, receive, name, self.answers)

    async def _websocket(self, scope: Scope, receive: Receive, send: Answer) -> None:
        try:
            target = find(scope)
            send.action = target.action
            if target.action == "socket":
                _check_version(scope)
        except Exception as error:  # noqa: BLE001 - `trouble` logs what is not expected
            await _refuse_websocket(scope, receive, send, error)
            return
        if target.action != "socket":
            await self._pages(scope, receive, send)
            return
        if (await receive())["type"] != "websocket.connect":
            return
        client = send.client = WebSocketClient(scope, send, self, self.settings.limits)
        try:
            # A browser is told a close code, but never the status of a refused handshake.
            await send({"type": "websocket.accept"})
            client.count_reading(self.requests)
            if client.is_direct and not client.connection.begun:
                client.go_through_host()
            if not self.accepting:
                await client.say_goodbye(1001, "shutting down", self._retry_ms())
                return
            try:
                self.clients.enter(client)
            except TooManyConnections as error:
                await client.say_goodbye(4503, str(error), self._retry_ms())
                return
            if client.is_direct:
                await self._conversation.run(client, receive)
            else:
                await client.beside_writer(lambda: self._conversation.run(client, receive))
        except Exception:  # noqa: BLE001 - one client's trouble is no other's
            _log.exception("connection_failed", client=client.serial)
            client.abort("internal error")
        finally:
            self.clients.leave(client)

    # What serves all clients

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Cancelling aborts whoever is still connected."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.writability.run)
            await nursery.start(self.readability.run)
            nursery.start_soon(Liveness(self.clients, self.settings, self.dismiss).run)
            self._nursery = nursery
            for context in self._contexts:
                nursery.start_soon(self._watch, context)
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None
                for client in self.clients:
                    self.clients.abort(client, "the runtime ends")

    def on_context(self, context: Any) -> None:
        """The host tells its `WorkerContext`: when it terminates, the streams are ended. May be told more than once."""
        if not any(context is known for known in self._contexts):
            self._contexts.append(context)
            if self._nursery is not None:
                self._nursery.start_soon(self._watch, context)

    async def _watch(self, context: Any) -> None:
        await context.terminated.wait()
        await self.drain()
        self._contexts.remove(context)

    async def drain(self) -> None:
        """Take no more streams and no more changes, and end the streams: in their protocol's words, then by force.

        Idempotent. It is over within `liveness.shutdown_s`, whatever the clients do.
        """
        first, self._draining = not self._draining, True
        self._changes.refuse()
        began, clients = trio.current_time(), len(self.clients)
        if first:
            _log.info("shutdown_begun", clients=clients)
        async with trio.open_nursery() as nursery:
            polite_s = self.settings.liveness.shutdown_s * POLITE_SHARE
            with trio.move_on_after(polite_s):
                await say_goodbyes(
                    self.clients, self._changes, self._farewell, patience_s=polite_s / 2, nursery=nursery
                )
                await self.clients.wait_empty()
            aborted = len(self.clients)
            for client in self.clients:
                self.clients.abort(client, "shutdown")
            with trio.move_on_after(self.settings.liveness.shutdown_s * POLITE_SHARE):
                await self.clients.wait_empty()  # at once, unless a host keeps its tasks
            nursery.cancel_scope.cancel()
        if first:
            took = round(trio.current_time() - began, 3)
            _log.info("shutdown_finished", clients=clients, aborted=aborted, left=len(self.clients), seconds=took)

    def statistics(self) -> ClientStatistics:
        """A moment of the clients."""
        return self.clients.statistics()

    def tree(self) -> list[dict[str, Any]]:
        """The clients as plain data."""
        return self.clients.tree()

    def next_serial(self) -> int:
        """See `clients.House`."""
        self._serial += 1
        return self._serial

    def dismiss(self, client: Client, code: int, reason: str) -> None:
        """End one client politely, in a task of its own; see `clients.House`."""
        if self._nursery is not None and client in self.clients:
            self.clients.count(reason)
            self._nursery.start_soon(self._send_away, client, code, reason)

    # Inside

    async def _send_away(self, client: Client, code: int, reason: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._say_goodbye, client, code, reason, 0)
            with trio.move_on_after(TAKE_S + self.settings.liveness.closing_s) as patience:
                await client.wait_gone()
            if patience.cancelled_caught:
                client.abort(reason)
            nursery.cancel_scope.cancel()

    async def _farewell(self, client: Client) -> None:
        await self._say_goodbye(client, 1001, "shutting down", self._retry_ms())

    async def _say_goodbye(self, client: Client, code: int, reason: str, retry_ms: int) -> None:
        client.why = client.why or reason
        try:
            await client.say_goodbye(code, reason, retry_ms)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            client.abort(reason)  # it left as it was told to
        except Exception:  # noqa: BLE001 - one client's trouble is no other's
            _log.exception("goodbye_failed", client=client.serial)
            client.abort(reason)

    def _retry_ms(self) -> int:
        liveness = self.settings.liveness
        return round(self._rng.uniform(liveness.retry_min_s, liveness.retry_max_s) * 1000)


def _check_version(scope: Scope) -> None:
    """A stream goes over HTTP/1.1: 1.0 cannot carry it, and over HTTP/2 the hosts there are hold back nothing."""
    version = scope["http_version"]
    if version == "1.0":
        reason = "a proxy in front has to speak 1.1 to the service (nginx: `proxy_http_version 1.1`)"
    elif version != "1.1":
        reason = "let the host offer no other, or have a proxy in front that speaks 1.1 to it"
    else:
        return
    raise RequestRefused(505, "http_version", f"streams need HTTP/1.1, and this is HTTP/{version}: {reason}")


def _check_method(scope: Scope, target: Target) -> None:
    allowed = METHODS.get(target.action)
    if allowed is None and scope["method"] in _NEVER:
        allowed = ("GET", "HEAD")
    if allowed is not None and scope["method"] not in allowed:
        names = ", ".join(allowed)
        allow = ((b"allow", names.encode()),)
        raise RequestRefused(405, "method_not_allowed", f"this takes {names}", allow)
    if target.action == "socket":
        raise RequestRefused(426, "upgrade_required", "this is a WebSocket", ((b"upgrade", b"websocket"),))


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for a path that leads nowhere."""
    if scope["type"] != "websocket":
        raise _nothing()
    await _refuse_websocket(scope, receive, send, _nothing())


def _nothing() -> RequestRefused:
    return RequestRefused(404, "not_found", "there is nothing here")


async def _refuse_websocket(scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
    problem = trouble(error)  # at once: a defect is to be in the log also where the client cannot be told
    await receive()  # `websocket.connect`
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return

    async def as_handshake(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    if scope["http_version"] == "1.1":  # after a handshake there is no second request
        problem = attrs.evolve(problem, headers=(*problem.headers, (b"connection", b"close")))
    await send_trouble(as_handshake, problem)
