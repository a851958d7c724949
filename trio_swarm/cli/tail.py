"""`trio-swarm tail URL`: a stream, a line an event, for as long as somebody reads it."""

import sys
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import attrs
import click
import trio

from trio_swarm.cli.interruptible import unless, until_signal
from trio_swarm.cli.lines import Told, again_in, json_line, note, plain_line, printable, say
from trio_swarm.cli.numbers import Finite
from trio_swarm.cli.output import NobodyReads, Output
from trio_swarm.cli.reaching import make_access, reaching
from trio_swarm.client.access import Access
from trio_swarm.client.address import EventsAddress, SocketAddress, find_events
from trio_swarm.client.event_source import EventSource, open_events, open_streams
from trio_swarm.client.happenings import Connected, Event, Lost, Snapshot
from trio_swarm.errors import ServiceRefused, SettingsError


@click.command(short_help="Print a stream's events as they come; it resumes by itself.")
@click.argument("url")
@click.option("--stream", "streams", multiple=True, metavar="KIND/ID", help="A stream; again for more, on a WebSocket.")
@click.option("--topics", metavar="A,B", help="Only these topics; without it, all.")
@click.option("--since", metavar="ID", help="Begin after this event; 0-0 is all that the service keeps.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line: stream, id, topic, event, data.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Stop after N events (snapshots count).")
@click.option("--seconds", type=Finite(0, min_open=True), metavar="S", help="Stop after S seconds.")
@click.option("--exact", is_flag=True, help="Ask for URL as it is, also where it looks like KIND/ID.")
@reaching
def tail(
    *,
    url: str,
    streams: tuple[str, ...],
    topics: str | None,
    since: str | None,
    as_json: bool,
    count: int | None,
    seconds: float | None,
    exact: bool,
    headers: tuple[str, ...],
    cacert: str | None,
    insecure: bool,
) -> None:
    """Print the events at URL, a line each, until Ctrl-C.

    \b
    URL is one of
      http://HOST/KIND/ID     a stream of a service, as server-sent events
      ws://HOST/KIND/ID       the same over a WebSocket
      ws://HOST/v1/ws         with --stream KIND/ID, as often as you like
      http…                   server-sent events of any other server, as they are
    The full http://HOST/v1/KIND/ID/events?topics=… will do as well, and http:// may be left out.

    \b
    Examples
      trio-swarm tail localhost:8000/channel/lobby
      trio-swarm tail localhost:8000/hub/cb --topics BTC-USD --since 0-0 --json
      trio-swarm tail ws://localhost:8000 --stream hub/cb --stream channel/lobby
      trio-swarm tail https://stream.wikimedia.org/v2/stream/recentchange --count 3

    Events go to stdout; what becomes of the connection goes to stderr, and in the plain form gaps and the states of
    feeds do too. Once connected, it comes back by itself and goes on after the last event it had; what cannot be had
    any more is a gap. When the service cannot be reached in the first place, that is the end: exit code 1. Exit code
    2 says that the service refused, or the command cannot be.
    """  # noqa: D301 - click looks for the character
    chosen = None if topics is None else topics.split(",")
    address = find_events(url, streams=streams, topics=chosen, since=since, exact=exact)
    access = make_access(headers, address.headers, cacert, insecure=insecure)
    several = isinstance(address, SocketAddress) and len(address.subscriptions) > 1
    printer = _Printer(Output(sys.stdout.fileno()), as_json=as_json, with_stream=several, left=count)
    try:
        trio.run(until_signal, _Tail(address, access, printer, seconds).run)
    except ServiceRefused as error:
        raise SettingsError(address.url.partition("?")[0], printable(error.reason)) from error


@attrs.define
class _Printer:
    """What is said where."""

    output: Output
    as_json: bool
    with_stream: bool
    left: int | None  # events until it is enough

    async def print(self, told: Told) -> None:
        counts = isinstance(told, Event | Snapshot)
        if self.as_json:
            await self.output.write(json_line(told))
        elif isinstance(told, Event | Snapshot):
            await self.output.write(plain_line(told, _now(), with_stream=self.with_stream))
        else:
            stream = f"{told.stream}: " if self.with_stream and told.stream is not None else ""
            say(f"{stream}{note(told)}")
        if counts and self.left is not None:
            self.left -= 1


@attrs.define
class _Tail:
    """One run of the command."""

    address: EventsAddress | SocketAddress
    access: Access
    printer: _Printer
    seconds: float | None
    connected: bool = False  # ever
    away: bool = False  # now

    async def run(self) -> None:
        """Read and print until it is enough.

        Raises:
            ServiceRefused: the service said no.
            click.ClickException: it was never there.
        """
        scope = trio.CancelScope()
        if self.seconds is not None:
            scope.deadline = trio.current_time() + self.seconds
        with scope:
            try:
                await unless(self.printer.output.watch, self._read)
            except NobodyReads:
                return
        if scope.cancelled_caught and not self.connected:
            raise click.ClickException(f"no connection within {self.seconds:g} s")

    async def _read(self) -> None:
        async with _open(self.address, self.access) as source:
            async for happening in source:
                match happening:
                    case Connected():
                        if self.away:
                            say("connected again")
                        self.connected, self.away = True, False
                    case Lost(reason=reason) if not self.connected:
                        raise click.ClickException(printable(reason))
                    case Lost(reason=reason, seconds=seconds):
                        self.away = True
                        say(f"{printable(reason)}; {again_in(seconds)}")
                    case _:
                        await self.printer.print(happening)
                        if self.printer.left == 0:
                            return
            say("the service says that there is no more")


def _open(address: EventsAddress | SocketAddress, access: Access) -> AbstractAsyncContextManager[EventSource]:
    if isinstance(address, SocketAddress):
        return open_streams(address.url, address.subscriptions, access=access)
    return open_events(
        address.url, access=access, since=address.since, stream=address.stream, envelope=address.envelope
    )


def _now() -> str:
    return datetime.now(tz=UTC).astimezone().strftime("%H:%M:%S")
