"""What a check found: one finding a thing that serving needs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import attrs

from trio_swarm.errors import SwarmError
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import Settings

State = Literal["ok", "warning", "fails"]


@attrs.frozen
class Finding:
    """What one check found. `says` is what is there, or what is wrong and what to do."""

    what: str
    state: State
    says: str


class Doubt(Exception):
    """It will work, and not as far as the settings say."""


@attrs.define
class Examined:
    """What the checks found, and what they made on the way: None where it could not be made."""

    settings: Settings | None = None
    objects: list[type[DurableObject]] = attrs.Factory(list)
    findings: list[Finding] = attrs.Factory(list)
    first_failure: SwarmError | None = None

    @property
    def fails(self) -> bool:
        """Whether serving would."""
        return self.first_failure is not None

    @contextmanager
    def looking_at(self, what: str) -> Iterator[Callable[[str], None]]:
        """Make one finding of what the block says or raises."""
        said: list[str] = []
        try:
            yield said.append
        except SwarmError as error:
            self.first_failure = self.first_failure or error
            self.findings.append(Finding(what, "fails", str(error)))
        except Doubt as doubt:
            self.findings.append(Finding(what, "warning", str(doubt)))
        else:
            self.findings.append(Finding(what, "ok", "; ".join(said)))
