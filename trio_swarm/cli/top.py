"""`trio-swarm top`: a running service in the terminal, seen through its control socket.

rich is imported here and where things are drawn, when the command is called: no other command waits for it.
"""

import json
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from trio_swarm.cli.early_interrupt import raise_instead
from trio_swarm.cli.figures import summary
from trio_swarm.cli.numbers import Finite
from trio_swarm.cli.viewing import Viewer, find_socket
from trio_swarm.errors import ServiceUnavailable

_SETTLE_S: Final = 0.1  # how soon a change of the window's size is followed
_WIDE: Final = 100_000  # columns of what is no terminal: nothing that a service tells is as long
_KEYS_TO_QUIT: Final = b"qQ\x1b"


@click.command(short_help="Watch a running service in the terminal.")
@click.argument("service", required=False, metavar="[URL|PORT|PATH]")
@click.option("--once", is_flag=True, help="Print one table and end; so it is without a terminal too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line a look.")
@click.option("--interval", type=Finite(0.1, 3600), default=1.0, show_default=True, help="Seconds between two looks.")
def top(service: str | None, *, once: bool, as_json: bool, interval: float) -> None:
    """Show rates, clients, objects, feeds and memory of a service on this machine; `q` ends it.

    Without an argument it is the only service of this user that is running.
    """
    once = once or not (as_json or sys.stdout.isatty())
    try:
        raise_instead()
        with Viewer(find_socket(service)) as viewer:
            if as_json or once:
                _print(viewer, interval, once=once, as_json=as_json)
            else:
                _watch(viewer, interval)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - whoever read it has gone; so must the last flush
    except ServiceUnavailable as error:
        raise click.ClickException(str(error)) from error


def _print(viewer: Viewer, interval: float, *, once: bool, as_json: bool) -> None:
    before = viewer.look()
    while True:
        time.sleep(interval)
        now = viewer.look()
        if as_json:
            print(json.dumps(summary(before, now)), flush=True)
        else:
            from rich.console import Console  # noqa: PLC0415 - see the module

            from trio_swarm.cli.top_view import draw  # noqa: PLC0415

            width = None if sys.stdout.isatty() else _WIDE
            Console(highlight=False, width=width).print(draw(before, now))
        if once:
            return
        before = now


def _watch(viewer: Viewer, interval: float) -> None:
    from rich.console import Console  # noqa: PLC0415 - see the module
    from rich.live import Live  # noqa: PLC0415

    from trio_swarm.cli.top_view import draw  # noqa: PLC0415

    console = Console(highlight=False)
    before = now = viewer.look()
    with _single_keys(), Live(draw(before, now), console=console, screen=True, auto_refresh=False) as live:
        while True:
            due = time.monotonic() + interval
            size = console.size
            while (left := due - time.monotonic()) > 0:
                if _quit_within(min(left, _SETTLE_S)):
                    return
                if console.size != size:
                    size = console.size
                    live.refresh()
            before, now = now, viewer.look()
            live.update(draw(before, now), refresh=True)


def _quit_within(seconds: float) -> bool:
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return False
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable) and any(key in _KEYS_TO_QUIT for key in os.read(sys.stdin.fileno(), 16))


@contextmanager
def _single_keys() -> Iterator[None]:
    """Take keys as they are pressed, unseen; the terminal is as it was at the end."""
    if not sys.stdin.isatty():
        yield
        return
    import termios  # noqa: PLC0415 - not on every system, and a terminal is
    import tty  # noqa: PLC0415

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
