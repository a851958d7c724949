"""Lines on their way into an object, and the account of them: what is acknowledged, and what is not known."""

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import click

from trio_swarm.cli.input_lines import LONGEST_LINE, Batch, Lines, LineTooLong
from trio_swarm.client.publishing import Publisher
from trio_swarm.errors import InvalidEvent, ServiceRefused
from trio_swarm.settings import MIB

_SHOW_S: Final = 0.2  # a progress that changes more often is not read
_SERVICE_LINE: Final = re.compile(r"line ([0-9]{1,9}): ")  # it counts within a request


@attrs.frozen
class Outgoing:
    """An event as it is sent. `named`: it has a messageId of its own."""

    line: bytes
    named: bool = False


@attrs.define
class Sending:
    """One run of `publish`.

    Attributes:
        make_event: what is sent for a line; raises `InvalidEvent`.
        skip: lines at the beginning that are left out.
        show_progress: on stderr, on a line that changes.
        acknowledged: the number of the last line that the service has, and all before it.
        events: how many of them were sent from here and acknowledged.
        doubtful: how many of those the service may have twice.
        under_way: how many are in a request without an answer.
    """

    publisher: Publisher
    make_event: Callable[[bytes], Outgoing]
    skip: int = 0
    show_progress: bool = False
    acknowledged: int = 0
    events: int = 0
    doubtful: int = 0
    under_way: int = 0
    last_id: str | None = None
    done: bool = False
    _begun_at: float = attrs.field(factory=time.monotonic)
    _shown_at: float = 0.0

    async def send_one(self, data: bytes) -> None:
        """Publish one event.

        Raises:
            InvalidEvent, ServiceRefused, ServiceUnavailable: it is none; it was not taken.
        """
        async with self.publisher:
            await self._send([(1, self.make_event(data))])
        self.done = True

    async def send_lines(self, lines: Lines) -> None:
        """Publish all lines to the end of the input.

        Raises:
            InvalidEvent: a line cannot be; everything before it is published.
            InputFailed: likewise, of the input.
            ServiceRefused, ServiceUnavailable: a request was not taken.
        """
        async with self.publisher:
            try:
                while batches := await lines.next():
                    for batch in batches:
                        await self._send_batch(batch)
            except LineTooLong as error:
                raise InvalidEvent(f"is longer than {LONGEST_LINE // MIB} MiB", error.number) from error
        self._clear()
        self.done = True

    def account(self) -> str:
        """How far it came, for somebody who wants to go on."""
        unknown = (
            "" if not self.under_way else f"; whether the next {_count(self.under_way, 'event')} arrived is not known"
        )
        if not self.acknowledged:
            return f"nothing is acknowledged{unknown}" if unknown else "nothing was published"
        return f"acknowledged up to line {self.acknowledged:,}{unknown}; go on with --skip {self.acknowledged}"

    def sentence(self) -> str:
        """What was done."""
        last = "" if self.last_id is None else f", the last is {self.last_id}"
        return f"published {_count(self.events, 'event')}{last}"

    async def _send_batch(self, batch: Batch) -> None:
        events: list[tuple[int, Outgoing]] = []
        mistake: InvalidEvent | None = None
        for number, line in enumerate(batch.lines, batch.first):
            if number <= self.skip or not line.strip():
                continue
            try:
                events.append((number, self.make_event(line)))
            except InvalidEvent as error:
                mistake = InvalidEvent(error.reason, number)
                break
        if events:
            await self._send(events)
        if mistake is not None:
            self._clear()
            self.acknowledged = (mistake.line or 1) - 1
            raise mistake
        self.acknowledged = batch.first + len(batch.lines) - 1
        self._show()

    async def _send(self, events: Sequence[tuple[int, Outgoing]]) -> None:
        self.under_way = len(events)
        try:
            lines = b"\n".join(event.line for _, event in events)
            key = "" if any(event.named for _, event in events) else None
            published = await self.publisher.publish(lines, key=key)
        except ServiceRefused as error:
            self.under_way = 0
            self._clear()
            raise ServiceRefused(_with_our_number(error.reason, [number for number, _ in events])) from error
        self.under_way = 0
        self.acknowledged = events[-1][0]
        self.events += published.count
        self.last_id = published.id
        if not published.certain:
            self.doubtful += published.count

    def _show(self) -> None:
        now = time.monotonic()
        if self.show_progress and now - self._shown_at >= _SHOW_S:
            self._shown_at = now
            rate = self.events / max(now - self._begun_at, 0.001)
            click.echo(f"\r{self.events:,} events, {rate:,.0f}/s\x1b[K", err=True, nl=False)

    def _clear(self) -> None:
        if self._shown_at:
            self._shown_at = 0.0
            click.echo("\r\x1b[K", err=True, nl=False)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _with_our_number(reason: str, numbers: Sequence[int]) -> str:
    found = _SERVICE_LINE.match(reason)
    if found is None or not 1 <= int(found[1]) <= len(numbers):
        return reason
    return f"line {numbers[int(found[1]) - 1]}: {reason[found.end() :]}"
