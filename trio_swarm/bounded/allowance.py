"""One number for what many hold together: each may take little, all of them no more than this."""

from types import TracebackType
from typing import Self

import attrs


@attrs.frozen
class AllowanceStatistics:
    """A moment of it; `refused` counts since the beginning."""

    held: int
    limit: int
    refused: int


class Allowance:
    """At most `limit`, of whatever is counted, held by all together."""

    __slots__ = ("_holders", "held", "limit", "refused")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.refused = 0
        self._holders: dict[int, int] = {}  # of a payload that several hold, by its identity

    def take(self, count: int) -> bool:
        """Hold so many more; False, and nothing is held, where that is too many."""
        if self.held + count > self.limit:
            self.refused += 1
            return False
        self.held += count
        return True

    def give(self, count: int) -> None:
        """Hold so many no longer."""
        self.held -= count

    def hold(self, payload: bytes) -> bool:
        """Hold a payload, which is counted once however many hold it; False as `take`."""
        holders = self._holders.get(id(payload), 0)
        if not holders and not self.take(len(payload)):
            return False
        self._holders[id(payload)] = holders + 1
        return True

    def release(self, payload: bytes) -> None:
        """Hold a payload no longer."""
        self._holders[id(payload)] -= 1
        if not self._holders[id(payload)]:
            del self._holders[id(payload)]
            self.give(len(payload))

    def share(self) -> "Share":
        """What one of the many holds; as a context manager it gives all back at its end."""
        return Share(self)

    def statistics(self) -> AllowanceStatistics:
        """A moment of it."""
        return AllowanceStatistics(self.held, self.limit, self.refused)


class Share:
    """See `Allowance.share`."""

    __slots__ = ("_allowance", "_payload", "held")

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._payload: bytes | None = None
        self.held = 0

    @property
    def limit(self) -> int:
        """Of all together."""
        return self._allowance.limit

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give()

    def hold(self, payload: bytes) -> bool:
        """See `Allowance.hold`; one payload a share, which `give` gives back too."""
        if not self._allowance.hold(payload):
            return False
        self._payload = payload
        return True

    def take(self, count: int) -> bool:
        """See `Allowance.take`."""
        if not self._allowance.take(count):
            return False
        self.held += count
        return True

    def give(self, count: int | None = None) -> None:
        """Give back so many, or all. Giving all is idempotent."""
        if count is None:
            count = self.held
            if self._payload is not None:
                self._allowance.release(self._payload)
                self._payload = None
        self.held -= count
        self._allowance.give(count)
