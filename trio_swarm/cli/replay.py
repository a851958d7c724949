"""`trio-swarm replay FILE`: a capture as a live feed."""

from functools import partial

import click
import trio

from trio_swarm.cli import Mistake
from trio_swarm.cli.interruptible import until_signal
from trio_swarm.cli.listening import ANOTHER_BIND, check_bind
from trio_swarm.cli.log import command_log
from trio_swarm.cli.numbers import Finite
from trio_swarm.cli.standard_output import announce
from trio_swarm.edge.listeners import parse_bind
from trio_swarm.errors import InvalidCapture, SettingsError
from trio_swarm.upstream.capture import Capture
from trio_swarm.upstream.replay import Replay

_SPEED = Finite(0, 1e6, min_open=True)  # at the most, a year passes in half a minute


@click.command(short_help="Play a capture as a live WebSocket feed.")
@click.argument("file", type=click.Path())
@click.option("--bind", metavar="HOST:PORT", default="127.0.0.1:9000", show_default=True, help="Where; port 0 is any.")
@click.option(
    "--speed",
    type=_SPEED,
    metavar="N",
    default=1.0,
    show_default=True,
    help="How many times as fast as it was recorded.",
)
@click.option("--loop", is_flag=True, help="Begin again after the last frame.")
@click.option("--once", is_flag=True, help="After the last frame close with 1000, and exit.")
@click.option("--open", "open_", is_flag=True, help="Listen beyond this machine, open to everybody.")
def replay(file: str, bind: str, speed: float, *, loop: bool, once: bool, open_: bool) -> None:
    """Play the capture FILE: every connection gets the whole of it, on a clock of its own.

    Where the capture has frames that were sent to the feed, a connection's clock starts with its first text message.
    """
    if loop and once:
        raise click.UsageError("--loop and --once exclude each other")
    try:
        check_bind(bind, is_open=open_, has_settings=False)
        capture = Capture.load(file)
    except (InvalidCapture, SettingsError) as error:
        raise Mistake(error) from error
    player = Replay(capture, speed=speed, loop=loop, once=once)
    try:
        with command_log():
            trio.run(until_signal, partial(player.serve, *parse_bind(bind), task_status=_Announcement(capture)))
    except OSError as error:
        refused = SettingsError("bind", f"cannot listen on {bind}: {error.strerror or error}; {ANOTHER_BIND}")
        raise Mistake(refused) from error


class _Announcement(trio.TaskStatus[str]):
    """Says where the replay is, when it is there."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture

    def started(self, value: str | None = None) -> None:
        capture = self._capture
        cut = "" if capture.complete else ", a recording that was cut off"
        announce(f"{value} plays {capture.name}: {len(capture.incoming)} frames, {capture.seconds:.1f} s{cut}")
