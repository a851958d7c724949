"""What an operator may do where the system refused: a port that is taken, a folder that may not be written to."""

from typing import Final

from trio_swarm.cli.listening import ANOTHER_BIND
from trio_swarm.errors import SettingsError, StorageError

ANOTHER_STORE: Final = "give another with --store FILE, or --store memory: to keep nothing"


def with_advice(error: SettingsError) -> SettingsError:
    """An address that cannot be listened on, or a store that cannot be had, and what to do about that."""
    advice = ANOTHER_STORE if error.where == "store" else ANOTHER_BIND
    return SettingsError(error.where, f"{error.reason}; {advice}") if _is_systems(error) else error


def _is_systems(error: SettingsError) -> bool:
    cause = error.__cause__
    return isinstance(cause.__cause__ if isinstance(cause, StorageError) else cause, OSError)
