"""The way in: one request is one turn, and a request that is repeated is done once.

Each request carries an `Idempotency-Key`. When its answer is lost nobody knows whether it was done; it is sent again
under the same key, and a service that remembers answers it again without doing it again. It remembers for 5 s: an
answer that was lost for longer may mean that the events are there twice, and `Published.certain` says so.
"""

import random
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import attrs
import msgspec
import trio

from trio_swarm.client.access import Access
from trio_swarm.client.http import HttpConnection
from trio_swarm.errors import InvalidPosition, ServiceRefused, ServiceUnavailable
from trio_swarm.journal.event import EventId
from trio_swarm.settings import KIB, REPEAT_S
from trio_swarm.supervise.backoff import Backoff

_ANSWER_BYTES: Final = 64 * KIB
_FRESH_S: Final = 3.0  # a connection unused for longer may be on its way down at the other end
_NDJSON: Final = ("content-type", "application/x-ndjson")


@attrs.frozen
class Published:
    """The service has it. `certain` False: it may have it twice."""

    id: str
    count: int
    certain: bool = True


class _Answer(msgspec.Struct):
    id: str
    count: int


class Publisher:
    """Publishes into one object, over one connection that is opened when it is needed. An async context manager.

    Args:
        url: the object's `…/publish`.
        access: how the service is reached.
        retry_s: how long a request is tried again while the service is away.
        on_retry: is told why, and for how long, before each wait.
        rng: draws the jitter.

    Attributes:
        is_certain: False while the last request may have been done without our knowing.
    """

    def __init__(
        self,
        url: str,
        *,
        access: Access | None = None,
        retry_s: float = 30.0,
        on_retry: Callable[[str, float], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._url = url
        self._access = access or Access()
        self._retry_s = retry_s
        self._on_retry = on_retry
        limits = self._access.settings
        rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self._backoff = Backoff(limits.backoff_initial_s, limits.backoff_max_s, rng)
        self._name = secrets.token_hex(8)
        self._sent = 0
        self.is_certain = True
        self._http: HttpConnection | None = None
        self._used_at = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def publish(self, lines: bytes, *, key: str | None = None) -> Published:
        """Publish events, one on a line, all or none; again and again while the service is away.

        Args:
            lines: the events as the service takes them, `{"data":…}` and so on; at most as many as it takes at once.
            key: the name of this request; None is one that nobody else has, and empty none at all: the events have
                `messageId`s of their own.

        Raises:
            ServiceUnavailable: it was away for longer than `retry_s`; whether this request was done is not known.
            ServiceRefused: it said no, and nothing was done.
        """
        self._sent += 1
        key = f"{self._name}-{self._sent}" if key is None else key
        begun = trio.current_time()
        self.is_certain = True
        doubt_since: float | None = None  # when the first request that may have been done was sent
        self._backoff.reset()
        while True:
            sent = trio.current_time()
            certain = doubt_since is None or sent - doubt_since < REPEAT_S
            try:
                answer = await self._ask(lines, key)
            except ServiceUnavailable as error:
                if error.uncertain and doubt_since is None:
                    doubt_since = sent
                self.is_certain = doubt_since is None
                seconds = (error.after_s or 0.0) + self._backoff.next()
                if trio.current_time() + seconds - begun > self._retry_s:
                    raise attrs.evolve(error, uncertain=doubt_since is not None) from error
                if self._on_retry is not None:
                    self._on_retry(error.reason, seconds)
                await trio.sleep(seconds)
            else:
                self.is_certain = True
                return Published(answer.id, answer.count, certain)

    async def _ask(self, lines: bytes, key: str) -> _Answer:
        limits = self._access.settings
        answer: _Answer | None = None
        connected = False
        try:
            with trio.move_on_after(limits.connect_s):
                stale = trio.current_time() - self._used_at > _FRESH_S
                if self._http is not None and (stale or not self._http.again()):
                    http, self._http = self._http, None
                    await http.aclose()
                if self._http is None:
                    self._http = await HttpConnection.open(self._url, self._access)
                connected = True
                self.is_certain = False
                answer = await self._send(self._http, lines, key)
                self._used_at = trio.current_time()
        finally:
            if answer is None and self._http is not None:  # in the middle of something: of no further use
                http, self._http = self._http, None
                await http.aclose()
        if answer is None:
            raise ServiceUnavailable(f"no answer within {limits.connect_s:g} s", uncertain=connected)
        return answer

    async def _send(self, http: HttpConnection, lines: bytes, key: str) -> _Answer:
        headers = (_NDJSON, ("idempotency-key", key)) if key else (_NDJSON,)
        head = await http.ask("POST", self._url, headers, lines)
        if head.status != 200:
            raise await http.refusal(head)
        try:
            answer = msgspec.json.decode(await http.read_body(_ANSWER_BYTES), type=_Answer)
            EventId.parse(answer.id)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidPosition) as error:
            raise ServiceRefused(f"this is no service of ours: {error}") from error
        if not 1 <= answer.count <= lines.count(b"\n") + 1:
            raise ServiceRefused(f"this is no service of ours: it says that it published {answer.count} events")
        return answer
