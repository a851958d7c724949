"""Where a command listens: on this machine only unless told otherwise, and what to do where that cannot be."""

from trio_swarm.edge.listeners import is_loopback
from trio_swarm.errors import SettingsError

ANOTHER_BIND = "give another with --bind HOST:PORT"


def check_bind(bind: str, *, is_open: bool, has_settings: bool = True) -> None:
    """Refuse an address that is none, and one that is open to all without having been told to be.

    `has_settings`: the command reads settings, which could say so too.

    Raises:
        SettingsError: it says what to write.
    """
    if not is_loopback(bind) and not is_open:
        meant = "--open (or `open = true`)" if has_settings else "--open"
        raise SettingsError(
            "bind",
            f"{bind} can be reached from other machines and nobody is asked who they are; say {meant} if that is meant",
        )
