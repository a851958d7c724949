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

    __slots__ = ("held", "limit", "refused")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.refused = 0

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

    def share(self) -> "Share":
        """What one of the many holds; as a context manager it gives all back at its end."""
        return Share(self)

    def statistics(self) -> AllowanceStatistics:
        """A moment of it."""
        return AllowanceStatistics(self.held, self.limit, self.refused)


class Share:
    """See `Allowance.share`."""

    __slots__ = ("_allowance", "held")

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
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
        self.held -= count
        self._allowance.give(count)
