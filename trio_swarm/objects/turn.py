"""A turn: the token that says whose turn it is, what it has changed, and whom it waits for.

The token stands in a context variable, so that everything the turn calls, and every task in a nursery of its own,
finds it. It is void once the turn has ended: a task that outlives the turn inherits nothing.

Calls that wait draw an edge from the running turn to the object they wait for. Before it waits, a call walks the
edges from its target: were it to reach the object whose turn it is made from, it would wait for itself. Each cycle
has a last edge, and that one is refused, wherever the cycle began.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING

from trio_swarm.errors import CallCycle
from trio_swarm.journal.event import Draft
from trio_swarm.storage import Alarm

if TYPE_CHECKING:
    from trio_swarm.objects.durable import DurableObject
    from trio_swarm.objects.host import Host
    from trio_swarm.objects.mailbox import Item


class Turn:
    """One turn of one object, from its beginning to its end (its commit comes later)."""

    __slots__ = ("alarms", "changes", "clear", "drafts", "ended", "host", "instance", "item", "read_only", "waits")

    def __init__(self, host: "Host", instance: "DurableObject", item: "Item") -> None:
        self.host = host
        self.instance = instance
        self.item = item
        self.ended = False
        self.read_only = item.read_only
        self.drafts: list[Draft] = []
        self.changes: dict[str, bytes | None] = {}
        self.clear = False  # everything stored before `changes` goes
        self.alarms: dict[str, Alarm | None] = {}
        self.waits: list[Host] = []  # one entry a call: a turn may wait for several, or for one twice

    def undo(self) -> None:
        """Nothing of what it has changed so far is kept."""
        self.drafts.clear()
        self.changes.clear()
        self.clear = False
        self.alarms.clear()


CURRENT: ContextVar[Turn | None] = ContextVar("trio_swarm.turn", default=None)


def current_turn() -> Turn | None:
    """The turn that this task runs in, if any."""
    turn = CURRENT.get()
    return None if turn is None or turn.ended else turn


def open_turn(instance: "DurableObject", what: str) -> Turn:
    """The running turn of this very object, to be changed.

    Raises:
        RuntimeError: there is none here, or it may only read.
    """
    turn = CURRENT.get()
    if turn is None or turn.ended or turn.instance is not instance:
        if not hasattr(instance, "id"):
            raise RuntimeError(f"{what} in __init__: an object publishes in a turn, and `start` is the first")
        raise RuntimeError(
            f"{what} outside of a turn of {instance.kind}/{instance.id}: "
            f"not `self.{what}(...)` in a background task, but `await self.reference.<a method that does it>(...)`"
        )
    if turn.read_only:
        raise RuntimeError(f"{what} in snapshot(): a snapshot only reads; change the object in a turn of its own")
    return turn


def check_cycle(turn: Turn, target: "Host") -> None:
    """Refuse a wait of `turn` for `target` that would wait for itself.

    Raises:
        CallCycle: with the way round.
    """
    home = turn.host
    came: dict[Host, Host | None] = {target: None}  # who was reached, and from whom
    ahead = [target]
    while ahead:
        host = ahead.pop()
        if host is home:
            raise CallCycle((home.name, *_way(came, home)))
        running = host.turn
        if running is not None and not running.ended:
            for following in running.waits:
                if following not in came:
                    came[following] = host
                    ahead.append(following)


def _way(came: "dict[Host, Host | None]", end: "Host") -> list[str]:
    """The names from the target to the end."""
    names: list[str] = []
    step: Host | None = end
    while step is not None:
        names.append(step.name)
        step = came[step]
    return names[::-1]
