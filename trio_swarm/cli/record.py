"""`trio-swarm record URL FILE`: a session with a feed, written down."""

from functools import partial
from pathlib import Path

import click
import trio

from trio_swarm.cli import Mistake
from trio_swarm.cli.interruptible import until_signal
from trio_swarm.cli.numbers import Finite
from trio_swarm.errors import FeedUnavailable, InvalidCapture, SettingsError
from trio_swarm.upstream.record import Recorder
from trio_swarm.upstream.websocket import parse_url


@click.command(short_help="Record a WebSocket feed into a capture.")
@click.argument("url")
@click.argument("file", type=click.Path())
@click.option("--send", multiple=True, metavar="JSON", help="Text to send when connected; may be given more than once.")
@click.option("--seconds", type=Finite(0, min_open=True), metavar="S", help="Stop after S seconds; else with Ctrl-C.")
def record(url: str, file: str, send: tuple[str, ...], seconds: float | None) -> None:
    """Record the WebSocket feed at URL into the new capture FILE, for `trio-swarm replay`."""
    recorder = Recorder(url, file, name=Path(file).stem, send=send)
    try:
        parse_url(url)
        trio.run(until_signal, partial(recorder.run, seconds))
    except (InvalidCapture, SettingsError) as error:
        raise Mistake(error) from error
    except FeedUnavailable as error:
        raise click.ClickException(error.reason) from error
    if not recorder.connected:
        raise click.ClickException("stopped before there was a connection")
    click.echo(f"{file}: {recorder.frames} frames, {recorder.seconds:.1f} s")
    if recorder.binary:
        click.echo(f"left out: {recorder.binary} binary frames, which a capture cannot hold", err=True)
    if recorder.ended is not None:
        click.echo(f"it ended by itself: {recorder.ended}", err=True)
